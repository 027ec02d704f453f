"""What the log says of drift: one line for an episode that opens or closes; what is only updated is left to the topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..schemas.events import DriftClosed, DriftOpened, Event
from .log_text import shown


def drift_lines(events: Iterable[Event]) -> Iterator[str]:
    """Yield the line of each event that has one; names from outside are shown on one line."""
    for event in events:
        if isinstance(event, DriftOpened):
            at, sd = event.change_point, abs(event.effect)
            yield (
                f"drift: {shown(event.model)} version {event.version}: {shown(event.signal)} {event.direction} by {sd:.2f} sd"
                f" ({event.before_mean:.4g} to {event.after_mean:.4g}) since {at.topic}/{at.partition} offset {at.offset},"
                f" episode {shown(event.episode_id)}"
            )
        elif isinstance(event, DriftClosed):
            yield (
                f"drift is over: {shown(event.model)} version {event.version}: {shown(event.signal)} {event.reason}"
                f" at {event.after_mean:.4g}, episode {shown(event.episode_id)}"
            )
