"""What the topics told during a demo: drift, jobs and models, each with the time stamp of its record."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import Any, NamedTuple, TypeVar, get_args

from ..schemas.events import DriftEvent, JobCommand, JobEvent, JobRequested, ModelPromoted, ModelRegistered, ModelRolledBack
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .fold_guard import FoldGuard
from .policy import ModelState, Policy, rebuild
from .transport import Transport

FOLLOWED = ("drift", "jobs", "job-events", "models", "metrics")
COUNTED = ("drift", "jobs", "models", "metrics")
DECIDING = tuple(get_args(union) for union in (DriftEvent, JobCommand, JobEvent))
POLL_RECORDS = 1_000
log = logging.getLogger("driftloop.demo")

EventT = TypeVar("EventT")


class Told(NamedTuple):
    """One event and the time stamp of its record in milliseconds."""

    event: Any
    timestamp_ms: int


class Story:
    """The story of one model, followed through its topics; `read` takes in what is new."""

    def __init__(self, transport: Transport, settings: Settings, model: str) -> None:
        self.told: list[Told] = []
        self.champion: int | None = None
        self._model = model
        self._policy = Policy(settings.policy, settings.definition(settings.policy.recipe))
        self._state = ModelState()
        self._kinds = {settings.topic(kind): kind for kind in FOLLOWED}
        self._reader = transport.reader(list(self._kinds), "earliest")
        self._ids: Counter[tuple[str, bytes]] = Counter()
        self._given_up: set[str] = set()
        self._guard = FoldGuard(log)

    def read(self, timeout_s: float = 0.0) -> None:
        """Take in every record that is there."""
        before = len(self.told)
        while records := self._reader.poll(POLL_RECORDS, timeout_s):
            for record in records:
                self._guard.take(record, KINDS[self._kinds[record.topic]].carries, partial(self._take, record))
            timeout_s = 0.0
        if len(self.told) > before:
            # The topics arrive in any interleaving; the policy wants drift before the jobs it started.
            deciding = [told.event for kinds in DECIDING for told in self.told if isinstance(told.event, kinds)]
            self._state = rebuild(self._policy, deciding).get(self._model, ModelState())

    def _take(self, record: Record, event: Any) -> None:
        kind = self._kinds[record.topic]
        if kind in COUNTED:
            self._ids[kind, dict(record.headers).get("ce_id") or record.value or b""] += 1
        if event.model == self._model:
            self.told.append(Told(event, record.timestamp_ms))
        if isinstance(event, ModelPromoted | ModelRolledBack) and event.model == self._model:
            self.champion = event.version

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of one type, in the order read."""
        return [told.event for told in self.told if isinstance(told.event, kind)]

    def registered(self) -> dict[int, ModelRegistered]:
        """Return the versions that were registered."""
        return {event.version: event for event in self.of(ModelRegistered)}

    @property
    def repairing(self) -> bool:
        """Return True while a job that was asked for has not ended."""
        return bool(self._state.running)

    def expected(self) -> str | None:
        """Return the id of the job that the policy is due to ask for and that has not shown up yet."""
        due, _ = self._policy.due(self._model, self._state)
        ids = [event.job_id for event in due if isinstance(event, JobRequested)]
        return next((job_id for job_id in ids if job_id not in self._given_up), None)

    def give_up(self, job_id: str) -> None:
        """Expect this job no longer."""
        self._given_up.add(job_id)

    def duplicates(self) -> int:
        """Return how many events of drift, jobs, metrics and models came more than once."""
        return sum(count - 1 for count in self._ids.values())
