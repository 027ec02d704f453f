"""What became of each job, folded from the jobs and job-events topics in any interleaving: for the people who ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec

from ..schemas.events import (
    Event,
    JobCancelled,
    JobCommand,
    JobEvent,
    JobFailed,
    JobFinished,
    JobProgressed,
    JobRequested,
    JobStarted,
    Outcome,
)
from ..schemas.records import Record
from ..settings import Settings
from .job_queue import JobQueue
from .transport import Transport
from .watching import read_events


class JobState(msgspec.Struct, kw_only=True):
    """A job as its events tell it; `state` is requested, running, promoted, proposed, registered, rejected, failed or cancelled.

    Times are those of the records, in seconds. `position`: its place among the jobs of its partition that run or wait, from 1.
    """

    job_id: str
    model: str
    recipe: str = ""
    state: str = "requested"
    requested_by: str = ""
    episode_id: str | None = None
    requested_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    position: int | None = None
    attempt: int = 0
    step: str = ""
    fraction: float = 0.0
    message: str = ""
    scalars: dict[str, float] = msgspec.field(default_factory=dict)
    at: int | None = None
    duration_s: float | None = None
    version: int | None = None
    arm: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Return True once nothing more will happen."""
        return self.state in (*get_args(Outcome), "failed", "cancelled")

    def take(self, event: Event, at_s: float) -> None:
        """Take in one event of this job, told at a time."""
        if isinstance(event, JobRequested):
            self.recipe, self.requested_by, self.episode_id = event.recipe, event.requested_by, event.episode_id
            # One that is put off, or makes room, is written once more.
            self.requested_at = at_s if self.requested_at is None else min(self.requested_at, at_s)
        elif isinstance(event, JobFinished):
            self.state, self.reasons, self.duration_s = event.outcome, event.reasons, event.duration_s
            self.recipe, self.version, self.arm, self.fraction = event.recipe, event.version, event.arm, 1.0
            self.ended_at = at_s
        elif isinstance(event, JobFailed):
            self.state, self.reasons = "cancelled" if event.cause == "cancelled" else "failed", (f"{event.cause}: {event.message}",)
            self.recipe, self.attempt, self.duration_s, self.ended_at = event.recipe, event.attempt, event.duration_s, at_s
        elif self.ended:
            return
        elif isinstance(event, JobCancelled):
            self.state, self.ended_at = "cancelled", at_s
        elif isinstance(event, JobStarted):
            self.state, self.recipe, self.attempt, self.started_at = "running", event.recipe, event.attempt, at_s
        elif isinstance(event, JobProgressed):
            self.step, self.fraction, self.message = event.step, event.fraction, event.message
            self.scalars, self.at = event.scalars, event.at


class JobStates:
    """The states of all jobs by id."""

    def __init__(self) -> None:
        self.known: dict[str, JobState] = {}

    def take(self, event: Event, at_s: float) -> JobState:
        """Take in one job command or event and return its job."""
        job_id: str = event.job_id  # type: ignore[attr-defined]  # commands and events of jobs have one
        state = self.known.setdefault(job_id, JobState(job_id=job_id, model=event.model))
        state.take(event, at_s)
        return state


def read_jobs(transport: Transport, settings: Settings) -> list[JobState]:
    """Return all jobs, those asked for first first; raises NotFound without the topics."""
    states, queue = JobStates(), JobQueue(settings.worker.max_queued)
    for kind, carries in (("jobs", JobCommand), ("job-events", JobEvent)):
        told: Iterable[tuple[Record, Event]] = read_events(transport, [settings.topic(kind)], carries)
        for record, event in told:
            states.take(event, record.timestamp_ms / 1000)
            queue.take(record, event)
    for job_id, position in queue.positions().items():
        if states.known[job_id].state == "requested":
            states.known[job_id].position = position
    # What was asked for before the topic forgot it has no such time.
    return sorted(states.known.values(), key=lambda one: one.requested_at or one.started_at or one.ended_at or 0.0)
