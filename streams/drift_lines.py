"""What the log says of drift: one line for an episode that opens or closes; what is only updated is left to the topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..schemas.events import DriftClosed, DriftOpened, Event
from ..schemas.plain_text import one_line


def drift_lines(events: Iterable[Event]) -> Iterator[str]:
    """Yield the line of each event that has one; names from outside are shown on one line."""
    for event in events:
        if isinstance(event, DriftOpened):
            at, sd = event.change_point, abs(event.effect)
            yield (
                f"drift: {one_line(event.model)} version {event.version}: {one_line(event.signal)} {event.direction} by {sd:.2f} sd"
                f" ({event.before_mean:.4g} to {event.after_mean:.4g}) since {at.topic}/{at.partition} offset {at.offset},"
                f" episode {one_line(event.episode_id)}"
            )
        elif isinstance(event, DriftClosed):
            yield (
                f"drift is over: {one_line(event.model)} version {event.version}: {one_line(event.signal)} {event.reason}"
                f" at {event.after_mean:.4g}, episode {one_line(event.episode_id)}"
            )
