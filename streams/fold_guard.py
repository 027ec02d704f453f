"""The guard of every fold of a control topic: what cannot be decoded or folded is passed over, counted, and told once a minute."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..schemas.control_events import decode_control
from ..schemas.dead_letters import DeadLetter, dead_letter_record
from ..schemas.errors import EventInvalid
from ..schemas.plain_text import one_line
from ..schemas.records import Record
from .transport import Outgoing

QUIET_S = 60.0


class FoldGuard:
    """The guard of one fold; `skipped` counts records by disposition."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self.skipped: Counter[str] = Counter()
        self._log = log
        self._clock = clock
        self._told: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def take(self, record: Record, carries: Any, fold: Callable[[Any], object]) -> EventInvalid | None:
        """Decode a record and fold its event; return why not, or None where that was done."""
        try:
            event = decode_control(record, carries)
        except EventInvalid as problem:
            return self.refuse(problem)
        except Exception as fault:  # noqa: BLE001 - no record may end the role that reads it
            return self.refuse(_fault(record, fault))
        return self.fold(record, event, fold)

    def fold(self, record: Record, event: Any, fold: Callable[[Any], object]) -> EventInvalid | None:
        """Fold an event; return the fault that kept it from being folded, or None."""
        try:
            fold(event)
        except Exception as fault:  # noqa: BLE001 - no event may end the role that reads it
            return self.refuse(_fault(record, fault))
        return None

    def refuse(self, problem: EventInvalid) -> EventInvalid:
        """Count a record that is passed over, and tell of it unless one like it was told within the minute."""
        kind = problem.disposition
        self.skipped[kind] += 1
        now = self._clock()
        if kind in self._told and now - self._told[kind] < QUIET_S:
            self._untold[kind] += 1
            return problem
        more = f" ({self._untold[kind]} more since the last such line)" if self._untold[kind] else ""
        self._told[kind], self._untold[kind] = now, 0
        self._log.warning("a record is passed over, %s: %s%s", kind, one_line(problem, 1_000), more)
        return problem


def _fault(record: Record, fault: Exception) -> EventInvalid:
    where = f"{record.topic}[{record.partition}] offset {record.offset}"
    return EventInvalid("processing_error", f"{type(fault).__name__}: {str(fault)[:1_000]} ({where})")


def dead_letter(topic: str, record: Record, problem: EventInvalid) -> Outgoing:
    """Return the dead letter of a record that was passed over, cut to what any topic takes."""
    letter = DeadLetter(
        **{name: getattr(record, name) for name in record.__struct_fields__},
        disposition=problem.disposition,
        message=str(problem),
    )
    key, value, headers = dead_letter_record(letter)
    return Outgoing(topic, b"" if key is None else key, value, headers)
