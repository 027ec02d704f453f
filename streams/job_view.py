"""What the topics say about jobs: which ended, which were taken back."""

from __future__ import annotations

import logging

from ..schemas.events import Event, JobCancelled, JobFailed, JobFinished
from ..schemas.topics import KINDS
from ..settings import Settings
from .fold_guard import FoldGuard
from .transport import Transport

READ_RECORDS = 5_000
POLL_S = 0.1
log = logging.getLogger("driftloop.worker")


class JobView:
    """The jobs and job-events topics, followed."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._kinds = {settings.topic(kind): KINDS[kind].carries for kind in ("jobs", "job-events")}
        self._reader = transport.reader(list(self._kinds))
        self.ended: set[str] = set()
        self.cancelled: set[str] = set()
        self._guard = FoldGuard(log)

    def refresh(self) -> None:
        """Take in all that was committed when this was called."""
        while not self._reader.at_end():
            for record in self._reader.poll(READ_RECORDS, POLL_S):
                self._guard.take(record, self._kinds[record.topic], self._take)

    def _take(self, event: Event) -> None:
        if isinstance(event, JobFinished | JobFailed):
            self.ended.add(event.job_id)
        elif isinstance(event, JobCancelled):
            self.cancelled.add(event.job_id)

    def close(self) -> None:
        """Let go of the topics."""
        self._reader.close()
