"""What the topics say about jobs and models now: followed by one reader each, which goes on where it was."""

from __future__ import annotations

import logging

from ..schemas.events import Event
from ..schemas.plain_text import one_line
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .fold_guard import FoldGuard
from .job_queue import JobQueue
from .registry import POLL_RECORDS, Registry
from .signing import verifier_of
from .transport import Transport

READ_RECORDS = 5_000
POLL_S = 0.1
log = logging.getLogger("driftloop.worker")


class JobView:
    """The jobs and job-events topics, followed; `queue` is what they come to."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self.queue = JobQueue(settings.worker.max_queued)
        self._kinds = {settings.topic(kind): KINDS[kind].carries for kind in ("jobs", "job-events")}
        self._reader = transport.reader(list(self._kinds))
        self._jobs = settings.topic("jobs")
        self._last: dict[int, int] = {}
        self._guard = FoldGuard(log)

    def refresh(self) -> None:
        """Take in all that was committed when this was called."""
        while not self._reader.at_end():
            for record in self._reader.poll(READ_RECORDS, POLL_S):
                self._take(record)

    def is_last(self, record: Record) -> bool:
        """Return True where no record of the jobs topic is known behind this one in its partition."""
        return self._last.get(record.partition, -1) <= record.offset

    def close(self) -> None:
        """Let go of the topics."""
        self._reader.close()

    def _take(self, record: Record) -> None:
        def take(event: Event) -> None:
            self.queue.take(record, event)

        if record.topic == self._jobs:
            self._last[record.partition] = record.offset
        self._guard.take(record, self._kinds[record.topic], take)


class RegistryView:
    """The models topic, followed; who serves instead of whom is told in the log."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._registry = Registry(verifier_of(settings.signing))
        self._reader = transport.reader([settings.topic("models")])
        self._champions: dict[str, int] | None = None

    def refresh(self) -> Registry:
        """Return the registry as the topic tells it now."""
        changed = False
        while not self._reader.at_end():
            for record in self._reader.poll(POLL_RECORDS, POLL_S):
                changed = self._registry.apply_record(record) or changed
        if changed or self._champions is None:
            self._tell()
        return self._registry

    def close(self) -> None:
        """Let go of the topic."""
        self._reader.close()

    def _tell(self) -> None:
        known, self._champions = self._champions, {}
        for model in self._registry.models:
            champion = self._registry.champion(model)
            if champion is None:
                continue
            self._champions[model] = champion.version
            if known is not None and known.get(model) != champion.version:
                before = f"instead of version {known[model]}" if model in known else "the first one"
                how = type(self._registry.history(model)[-1]).__name__
                log.info("%s: version %d is the champion now, %s (%s)", one_line(model), champion.version, before, how)
