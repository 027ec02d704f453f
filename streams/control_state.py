"""What the control plane knows, folded from the topics, and the records that are due: shared by the Faust app and the plain loop.

The state is rebuilt from the drift, jobs, job-events and alerts topics at every start instead of being kept in a table of its own: the
topics hold it anyway, a few records an episode, so there is no second copy that could differ from them after a crash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import msgspec

from ..schemas.control_events import decode_control
from ..schemas.dead_letters import SAFE_BYTES
from ..schemas.events import AlertFired, AlertResolved, Event, JobProgressed, JobRequested, JobStarted
from ..schemas.plain_text import one_line
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .fold_guard import FoldGuard, dead_letter
from .outgoing import outgoing
from .policy import ModelState, Policy
from .transport import Outgoing, Transport

# The order in which a rebuild folds them: a request counts for an episode that is known, an end for a job that is.
FOLDED = ("drift", "jobs", "job-events", "alerts")
READ_RECORDS = 5_000
POLL_S = 0.2
# The worker sets aside what is no job: a record has one dead letter, however many read it.
SET_ASIDE_HERE = ("drift", "job-events")
log = logging.getLogger("driftloop.control")


class ControlState:
    """The policy's state of every model, and the guard of the topics it is folded from."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy(settings.policy, settings.definition(settings.policy.recipe))
        self._kinds = {settings.topic(kind): kind for kind in FOLDED}
        self.guard = FoldGuard(log)
        self.models: dict[str, ModelState] = {}

    @property
    def topics(self) -> list[str]:
        """Return the full names of the topics the state is made of."""
        return list(self._kinds)

    def decode(self, record: Record) -> Event:
        """Return the event of a record; raises EventInvalid."""
        return decode_control(record, KINDS[self._kinds[record.topic]].carries)

    def admit(self, record: Record) -> tuple[str | None, list[Outgoing]]:
        """Fold a record in; return its model, or None and the dead letter where the record is passed over."""
        models: list[str] = []

        def take(event: Event) -> None:
            self.fold(event)
            models.append(event.model)

        kind = self._kinds[record.topic]
        problem = self.guard.take(record, KINDS[kind].carries, take)
        if problem is None:
            return models[0], []
        return None, [dead_letter(self._settings.topic("jobs.dlq"), record, problem)] if kind in SET_ASIDE_HERE else []

    def fold(self, event: Event) -> None:
        """Take an event in; a second time changes nothing."""
        before = self.models.get(event.model, ModelState())
        after = self._policy.fold(event, before)
        if after is not before:
            self.models[event.model] = after

    def due(self, model: str) -> list[Outgoing]:
        """Return the records that are due for a model, and count them as sent; a fault of one model is told and ends there."""
        try:
            events, after = self._policy.due(model, self.models.get(model, ModelState()))
            made = [(event, outgoing(self._settings, event)) for event in events]
        except Exception as fault:  # noqa: BLE001 - the other models' requests must not wait for this one
            log.error("nothing is asked for %s: %s", one_line(model), one_line(f"{type(fault).__name__}: {fault}"))
            return []
        self.models[model] = after
        sent = []
        for event, record in made:
            if len(record.value or b"") > SAFE_BYTES:
                log.error("%s of %s is not told: it has %d bytes", type(event).__name__, one_line(model), len(record.value or b""))
                continue
            log.info("%s", _told(event))
            sent.append(record)
        return sent

    def take(self, events: Mapping[str, Iterable[tuple[Record, Event]]]) -> None:
        """Start afresh from the events of each topic kind in log order."""
        self.models = {}
        for kind in FOLDED:
            for record, event in events.get(kind, ()):
                self.guard.fold(record, event, self.fold)

    def read(self, transport: Transport) -> dict[str, list[tuple[Record, Event]]]:
        """Return all events that matter, by topic kind; records that are none are left to whoever consumes them first."""
        events: dict[str, list[tuple[Record, Event]]] = {kind: [] for kind in FOLDED}
        reader = transport.reader(self.topics)
        try:
            while True:
                records = reader.poll(READ_RECORDS, POLL_S)
                for record in records:
                    self._sort_in(record, events)
                if not records and reader.at_end():
                    return events
        finally:
            reader.close()

    def _sort_in(self, record: Record, events: dict[str, list[tuple[Record, Event]]]) -> None:
        kind = self._kinds[record.topic]

        def keep(event: Event) -> None:
            if not isinstance(event, JobStarted | JobProgressed):
                # Where it came from is kept, not the bytes again.
                events[kind].append((msgspec.structs.replace(record, value=None, headers=()), event))

        self.guard.take(record, KINDS[kind].carries, keep)


def _told(event: Event) -> str:
    """Return what the log says of an event that is sent."""
    if isinstance(event, JobRequested):
        rows = f"{event.recipe}, {event.labelled_rows} labelled rows"
        return f"job {one_line(event.job_id)} of {one_line(event.model)} is asked for: {one_line(rows)}"
    if isinstance(event, AlertFired):
        return f"alert {one_line(event.alert_id)} of {one_line(event.model)} fired, {event.severity}: {one_line(event.summary)}"
    if isinstance(event, AlertResolved):
        return f"alert {one_line(event.alert_id)} of {one_line(event.model)} is resolved: {one_line(event.summary)}"
    return f"{type(event).__name__} of {one_line(event.model)}"
