"""What the control plane knows, folded from the topics, and the records that are due: shared by the Faust app and the plain loop.

The state is rebuilt from the drift, jobs, job-events and alerts topics at every start instead of being kept in a table of its own: the
topics hold it anyway, a few records an episode, so there is no second copy that could differ from them after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..schemas import codecs
from ..schemas.dead_letters import DeadLetter, dead_letter_headers
from ..schemas.errors import EventInvalid
from ..schemas.events import Event, JobProgressed, JobStarted
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .outgoing import outgoing
from .policy import ModelState, Policy
from .transport import Outgoing, Transport

# The order in which a rebuild folds them: a request counts for an episode that is known, an end for a job that is.
FOLDED = ("drift", "jobs", "job-events", "alerts")
READ_RECORDS = 5_000
POLL_S = 0.2


class ControlState:
    """Hold the policy's state of every model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Policy(settings.policy)
        self._kinds = {settings.topic(kind): kind for kind in FOLDED}
        self.models: dict[str, ModelState] = {}

    @property
    def topics(self) -> list[str]:
        """Return the full names of the topics the state is made of."""
        return list(self._kinds)

    def decode(self, record: Record) -> Event:
        """Return the event of a record; raises EventInvalid."""
        carries = KINDS[self._kinds[record.topic]].carries
        event: Event = codecs.decode(record.value, carries, f"{record.topic}[{record.partition}] offset {record.offset}")
        return event

    def fold(self, event: Event) -> None:
        """Take an event in; a second time changes nothing."""
        before = self.models.get(event.model, ModelState())
        after = self._policy.fold(event, before)
        if after is not before:
            self.models[event.model] = after

    def due(self, model: str) -> list[Outgoing]:
        """Return the records that are due for a model, and count them as sent."""
        events, self.models[model] = self._policy.due(model, self.models.get(model, ModelState()))
        return [self.outgoing(event) for event in events]

    def outgoing(self, event: Event) -> Outgoing:
        """Return the record of an event that the control plane tells."""
        return outgoing(self._settings, event)

    def dead_letter(self, record: Record, problem: Exception) -> Outgoing:
        """Return the dead letter of a record that is no event or that could not be handled."""
        letter = DeadLetter(
            **{name: getattr(record, name) for name in record.__struct_fields__},
            disposition=problem.disposition if isinstance(problem, EventInvalid) else "processing_error",
            message=str(problem),
        )
        headers = tuple(dead_letter_headers(letter))
        return Outgoing(self._settings.topic("jobs.dlq"), b"" if record.key is None else record.key, record.value, headers)

    def take(self, events: Mapping[str, Iterable[Event]]) -> None:
        """Start afresh from the events of each topic kind in log order."""
        self.models = {}
        for kind in FOLDED:
            for event in events.get(kind, ()):
                self.fold(event)

    def read(self, transport: Transport) -> dict[str, list[Event]]:
        """Return all events that matter, by topic kind; records that are none are left to whoever consumes them first."""
        events: dict[str, list[Event]] = {kind: [] for kind in FOLDED}
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

    def _sort_in(self, record: Record, events: dict[str, list[Event]]) -> None:
        try:
            event = self.decode(record)
        except EventInvalid:
            return
        if not isinstance(event, JobStarted | JobProgressed):
            events[self._kinds[record.topic]].append(event)
