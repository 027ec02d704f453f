"""The queue of jobs, which is the jobs topic itself: who waits, who comes first, what needs no work at all.

A consumer group can finish records in the order of their offsets alone. So what must wait is not held but put to the end of the topic once
more, in the transaction that finishes it at the front, and the best job that waits comes to the front in a bounded number of steps:

- Jobs of the policy go before those of users, then the model whose last job ended longest ago, then who asked first.
- A front that is not the best is cut off, up to the best one or to the end of what was looked at: what is best when it gets there stays.
- Of each model `worker.max_queued` jobs of the policy and as many of users wait; what was asked later fails at once, as what cannot run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from ..schemas.errors import EventInvalid, JobError
from ..schemas.events import Event, JobCancelled, JobCommand, JobFailed, JobFinished, JobRequested
from ..schemas.records import Headers, Record
from .transport import Outgoing

TRIES_HEADER = "driftloop_tries"
NOT_BEFORE_HEADER = "driftloop_not_before_ms"
MAX_DELAY_MS = 3_600_000
MAX_TRIES = 1_000


class Waiting(NamedTuple):
    """A job that was asked for and has not ended: where it lies now, and since when in the order of the topic."""

    job_id: str
    model: str
    requested_by: str
    partition: int
    offset: int
    since: int
    due_ms: int


class Asked(NamedTuple):
    """A record of the jobs topic as it was read: its command, or why it is none."""

    record: Record
    command: JobCommand | None
    problem: EventInvalid | None


class Step(NamedTuple):
    """What to do next: finish all up to `through` with what follows from it, or work on the front, or (neither) wait."""

    work: bool = False
    through: Record | None = None
    letters: tuple[Asked, ...] = ()
    failed: tuple[tuple[JobRequested, JobError], ...] = ()
    again: tuple[Record, ...] = ()


class JobQueue:
    """The jobs that wait, ended and were taken back, folded from the jobs and job-events topics in any interleaving."""

    def __init__(self, max_queued: int) -> None:
        self.ended: set[str] = set()
        self.cancelled: set[str] = set()
        self.waiting: dict[str, Waiting] = {}
        self._max_queued = max_queued
        self._lines: dict[tuple[str, str], OrderedDict[str, None]] = {}
        self._served: dict[str, int] = {}
        self._count = 0

    def take(self, record: Record, event: Event) -> None:
        """Take in one command or event; a second time changes nothing that matters."""
        self._count += 1
        if isinstance(event, JobFinished | JobFailed):
            self.end(event.model, event.job_id)
        elif isinstance(event, JobCancelled):
            self.cancelled.add(event.job_id)
        elif isinstance(event, JobRequested) and event.job_id not in self.ended:
            known = self.waiting.get(event.job_id)
            since = self._count if known is None else known.since
            line = (event.model, event.requested_by) if known is None else (known.model, known.requested_by)
            self.waiting[event.job_id] = Waiting(event.job_id, *line, record.partition, record.offset, since, not_before_ms(record))
            self._lines.setdefault(line, OrderedDict())[event.job_id] = None

    def end(self, model: str, job_id: str) -> None:
        """Note that a job ended: its model was served now."""
        if job_id in self.ended:
            return
        self.ended.add(job_id)
        self._served[model] = self._count
        known = self.waiting.pop(job_id, None)
        if known is not None:
            line = self._lines[known.model, known.requested_by]
            del line[job_id]
            if not line:
                del self._lines[known.model, known.requested_by]

    def is_full(self, request: JobRequested) -> bool:
        """Return True where as many jobs of this model and kind as may wait were asked for before this one."""
        line = self._lines.get((request.model, request.requested_by), OrderedDict())
        return len(line) > self._max_queued and request.job_id not in islice(line, self._max_queued)

    def rank(self, one: Waiting) -> tuple[bool, int, int]:
        """Return what orders jobs that wait; the lowest comes first."""
        return one.requested_by != "policy", self._served.get(one.model, -1), one.since

    def positions(self) -> dict[str, int]:
        """Return which of its partition's jobs that wait, or run, each is, from 1, as it stands now."""
        found: dict[int, list[str]] = {}
        for one in sorted(self.waiting.values(), key=self.rank):
            if one.job_id not in self.cancelled:
                found.setdefault(one.partition, []).append(one.job_id)
        return {job_id: at for jobs in found.values() for at, job_id in enumerate(jobs, 1)}

    def best(self, front: Record, now_ms: int) -> Waiting | None:
        """Return the job that should be at the front of a partition, of those that are there and due."""
        there = (one for one in self.waiting.values() if one.partition == front.partition and one.offset >= front.offset)
        return min((one for one in there if one.due_ms <= now_ms and one.job_id not in self.cancelled), key=self.rank, default=None)

    def is_crowded(self) -> bool:
        """Return True where more jobs of a model wait than may."""
        return any(len(line) > self._max_queued for line in self._lines.values())


def next_step(queue: JobQueue, batch: Sequence[Asked], refusal: Callable[[JobRequested], str | None], now_ms: int) -> Step:
    """Return what to do about the front of a partition and the records behind it; `refusal` says why a job cannot run at all."""
    found = _Sorted(queue, refusal)
    for asked in batch:
        found.add(asked)
    if found.full:
        return found.step(len(batch))
    needless = next((at for at, asked in enumerate(batch) if id(asked) in found.kept), len(batch))
    if needless:
        return found.step(needless)
    best, front = queue.best(batch[0].record, now_ms), batch[0].command
    if best is None or front is None:
        return Step()
    if best.job_id == front.job_id:
        return Step(work=True)
    at = next(
        (at for at, asked in enumerate(batch) if asked.command is not None and asked.command.job_id == best.job_id), len(batch)
    )
    return found.step(at)


class _Sorted:
    """A batch by what becomes of each record; `kept` holds those that need work."""

    def __init__(self, queue: JobQueue, refusal: Callable[[JobRequested], str | None]) -> None:
        self.full = False
        self.kept: dict[int, Asked] = {}
        self._queue = queue
        self._refusal = refusal
        self._seen: set[str] = set()
        self._batch: list[Asked] = []
        self._failed: dict[int, JobError] = {}

    def add(self, asked: Asked) -> None:
        """Sort one record in."""
        self._batch.append(asked)
        request = asked.command
        if not isinstance(request, JobRequested) or request.job_id in self._queue.ended or request.job_id in self._seen:
            return
        self._seen.add(request.job_id)
        problem = self._problem(request)
        if problem is None:
            self.kept[id(asked)] = asked
        else:
            self._failed[id(asked)] = problem

    def step(self, count: int) -> Step:
        """Return the step that finishes the first `count` records: those that need work come again, the best of them first."""
        done = self._batch[:count]
        again = [one for one in done if id(one) in self.kept]
        again.sort(key=lambda one: self._rank(one.command))
        return Step(
            through=done[-1].record,
            letters=tuple(one for one in done if one.problem is not None),
            failed=tuple(
                (one.command, self._failed[id(one)])
                for one in done
                if id(one) in self._failed and isinstance(one.command, JobRequested)
            ),
            again=tuple(one.record for one in again),
        )

    def _problem(self, request: JobRequested) -> JobError | None:
        if request.job_id in self._queue.cancelled:
            return JobError("cancelled", "job was taken back before it began")
        if self._queue.is_full(request):
            self.full = True
            limit = self._queue._max_queued
            return JobError(
                "error",
                f"jobs of a model that wait must be at most {limit} of {request.requested_by}s, got more (worker.max_queued)",
            )
        refusal = self._refusal(request)
        return None if refusal is None else JobError("error", refusal)

    def _rank(self, command: JobCommand | None) -> tuple[bool, int, int]:
        waiting = self._queue.waiting.get(command.job_id) if command is not None else None
        return (True, 0, 0) if waiting is None else self._queue.rank(waiting)


def again(record: Record, tries: int | None = None, not_before_ms: int = 0) -> Outgoing:
    """Return a record once more, for the end of its partition; with `tries` it says how often it was tried, and when it is due."""
    headers = record.headers
    if tries is not None:
        kept = tuple(one for one in headers if one[0] not in (TRIES_HEADER, NOT_BEFORE_HEADER))
        headers = (*kept, (TRIES_HEADER, str(tries).encode()), (NOT_BEFORE_HEADER, str(not_before_ms).encode()))
    return Outgoing(record.topic, record.key, record.value, headers, partition=record.partition)


def tries_of(record: Record) -> int:
    """Return how often a job was put off, as its record says."""
    return min(_number(record.headers, TRIES_HEADER), MAX_TRIES)


def not_before_ms(record: Record) -> int:
    """Return when a job is due; whatever a stranger writes, it is not put off beyond a bound."""
    return min(_number(record.headers, NOT_BEFORE_HEADER), max(0, record.timestamp_ms) + MAX_DELAY_MS)


def _number(headers: Headers, name: str) -> int:
    text = dict(headers).get(name) or b""
    return int(text) if len(text) <= 15 and text.isdigit() else 0
