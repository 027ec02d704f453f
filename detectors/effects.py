"""What a monitor gives back: events and dead letters, in an order that does not depend on how the log was cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..schemas.dead_letters import DeadLetter
from ..schemas.events import Event


@dataclass(slots=True)
class Effects:
    """The events and dead letters of one batch, how much of what was counted, and lines for the log."""

    events: list[Event] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
