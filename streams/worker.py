"""The worker: one job after another, each in a child process, each ended in one transaction with what it publishes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import msgspec

from ..schemas.errors import (
    BrokerUnavailable,
    Conflict,
    DriftloopError,
    EventInvalid,
    JobError,
    RecipeInvalid,
    SlotTaken,
    StoreUnavailable,
)
from ..schemas.events import (
    Cause,
    Event,
    JobCommand,
    JobFailed,
    JobFinished,
    JobRequested,
    JobStarted,
)
from ..schemas.plain_text import one_line
from ..schemas.recipe_reading import recipe_asked
from ..schemas.records import Record
from ..settings import Settings
from .child_process import Limits
from .fold_guard import FoldGuard, dead_letter
from .job_queue import Asked, Step, again, next_step, tries_of
from .job_run import JobLost, JobRun
from .job_space import sweep
from .job_view import JobView, RegistryView
from .late_jobs import LateJobs
from .outgoing import outgoing, outgoings
from .registry import Registry
from .transport import Transport
from .warm_child import WarmChild

TAKE_S = 0.2
RETRY_S = 2.0
FLUSH_S = 5.0
IDLE_LOOK_S = 10.0
AHEAD_RECORDS = 500
MAX_PUT_OFF_S = 600.0
LATE_PUT_OFF_S = 3_600.0
CAUSES: dict[str, Cause] = {cause: cause for cause in ("error", "timeout", "memory", "crashed", "cancelled")}
log = logging.getLogger("driftloop.worker")


class Worker:
    """The jobs of the jobs topic, one after another, in the order of `job_queue.py`.

    A job that another start of this worker began is begun again, up to `worker.max_attempts`; one that found the store full, read-only
    or away is put off, up to `worker.max_put_off` times; then one of a user fails, and one of the policy waits on, as an alert.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        sweep()
        self._work = transport.work(settings.worker_group, settings.topic("jobs"), settings.worker.slot)
        self._view = JobView(settings, transport)
        self._models = RegistryView(settings, transport)
        self._looked_at = 0.0
        self._sender = transport.sender()
        self._child = WarmChild(Limits(timeout_s=settings.worker.job_timeout_s, memory_bytes=settings.worker.job_memory_bytes))
        self._guard = FoldGuard(log)
        self._late = LateJobs(settings, transport)
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a job in hand is given up then and comes again. Raises SlotTaken once another has the slot."""
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    self.warm()
                    self.step(TAKE_S)
                except SlotTaken:
                    raise
                except (BrokerUnavailable, Conflict) as problem:
                    log.warning("work is tried again in %g s: %s", RETRY_S, problem)
                    stop.wait(RETRY_S)
        finally:
            self.close()

    def warm(self) -> None:
        """Have a child wait for the next job, unless the settings say that each job starts its own."""
        if self._settings.worker.warm_child:
            self._child.start()

    def step(self, timeout_s: float = 0.0) -> bool:
        """Do one job, or finish what needs no work; return False if there was nothing to do. Raises SlotTaken, BrokerUnavailable."""
        record = self._work.take(timeout_s)
        if record is None:
            if time.monotonic() - self._looked_at > IDLE_LOOK_S:
                self._look()
            return False
        try:
            return self._handle(record, timeout_s)
        except (SlotTaken, BrokerUnavailable):
            raise
        except Exception as fault:
            log.exception("a record of %s met a fault of ours", record.topic)
            problem = self._guard.refuse(EventInvalid("processing_error", f"{type(fault).__name__}: {fault}"))
            self._set_aside(record, problem)
        return True

    def close(self) -> None:
        """Leave the group and let go of everything."""
        for one in (self._child, self._view, self._models, self._sender, self._work):
            one.close()

    def _handle(self, record: Record, timeout_s: float) -> bool:
        self._view.refresh()
        asked = self._asked(record)
        step = self._step([asked])
        if not self._view.is_last(record) and (not step.work or self._view.queue.is_crowded()):
            step = self._step([asked, *map(self._asked, self._work.ahead(AHEAD_RECORDS))])
        if step.through is not None:
            self._finish(step.through, step)
        elif step.work and isinstance(asked.command, JobRequested):
            self._do(record, asked.command)
        else:
            self._stop.wait(timeout_s)
            return False
        return True

    def _asked(self, record: Record) -> Asked:
        commands: list[Any] = []
        problem = self._guard.take(record, JobCommand, commands.append)
        return Asked(record, commands[0] if problem is None else None, problem)

    def _step(self, batch: list[Asked]) -> Step:
        registry = self._look()

        def refusal(request: JobRequested) -> str | None:
            if registry.champion(request.model) is None:
                return f"model must have a champion to repair, got none called {request.model!r}"
            try:
                recipe_asked(request, self._settings.recipes, take_whole=self._settings.worker.take_whole_recipes)
            except RecipeInvalid as problem:
                return str(problem)
            return None

        return next_step(self._view.queue, batch, refusal, int(time.time() * 1000))

    def _look(self) -> Registry:
        self._looked_at = time.monotonic()
        return self._models.refresh()

    def _finish(self, through: Record, step: Step) -> None:
        """Finish all up to a record in one transaction, with the dead letters, ends and postponements that follow from it."""
        began = time.monotonic()
        ends = [_failed(request, 0, began, problem) for request, problem in step.failed]
        topic = self._settings.topic("jobs.dlq")
        letters = [dead_letter(topic, one.record, one.problem) for one in step.letters if one.problem is not None]
        outputs = [*letters, *(outgoing(self._settings, end) for end in ends), *(again(record) for record in step.again)]
        try:
            done = self._work.finish(through, outputs)
        except SlotTaken:
            raise
        except Conflict as refused:
            if len(step.letters) != 1 or ends or step.again:
                raise
            log.error("a dead letter for %s is refused: %s", topic, one_line(refused))
            self._set_aside(through, step.letters[0].problem or EventInvalid("processing_error", str(refused)))
            return
        if done:
            for end in ends:
                self._view.queue.end(end.model, end.job_id)
                self._late.end(end.job_id)
                log.info("job %s of %s failed: %s", one_line(end.job_id), one_line(end.model), one_line(end.message))

    def _set_aside(self, record: Record, problem: EventInvalid) -> None:
        """Finish a record with its dead letter, as small as it must be; whatever the broker says, the next record comes."""
        topic = self._settings.topic("jobs.dlq")
        for kept in (record, msgspec.structs.replace(record, value=None, headers=())):
            try:
                self._work.finish(record, [dead_letter(topic, kept, problem)])
                return
            except SlotTaken:
                raise
            except Conflict as refused:
                log.error("a dead letter for %s is refused: %s", topic, one_line(refused))
        self._work.finish(record, [])

    def _do(self, record: Record, request: JobRequested) -> None:
        try:
            attempt = self._work.attempt(record)
        except SlotTaken:
            raise
        except Conflict as problem:
            log.info("job %s is another worker's: %s", one_line(request.job_id), one_line(problem))
            return
        began = time.monotonic()
        try:
            events = self._attempt(record, request, attempt, began)
        except JobLost:
            log.info("job %s is given up: it belongs to another worker or this one stops", one_line(request.job_id))
            return
        except BrokerUnavailable:
            raise
        except (StoreUnavailable, OSError) as problem:
            if self._put_off(record, request, problem):
                return
            events = [_failed(request, attempt, began, JobError("error", one_line(problem)))]
        except DriftloopError as problem:
            kind = problem.kind if isinstance(problem, JobError) else "error"
            events = [_failed(request, attempt, began, JobError(kind, str(problem)))]
        except Exception as problem:
            log.exception("job %s met a fault of ours", one_line(request.job_id))
            events = [_failed(request, attempt, began, JobError("error", f"{type(problem).__name__}: {problem}"))]
        self._end(record, request, attempt, events)

    def _put_off(self, record: Record, request: JobRequested, problem: Exception) -> bool:
        """Ask for a job once more, later; return False where it was put off often enough.

        One of the policy is never put off often enough: no other would be asked for in its place once there is room.
        """
        worker, tries = self._settings.worker, tries_of(record) + 1
        is_late = tries > worker.max_put_off
        if is_late and request.requested_by != "policy":
            return False
        delay_s = LATE_PUT_OFF_S if is_late else min(worker.put_off_s * 2 ** (tries - 1), MAX_PUT_OFF_S)
        done = self._work.finish(record, [again(record, tries, int((time.time() + delay_s) * 1000))])
        if done:
            log.warning(
                "job %s of %s is put off by %g s: %s", one_line(request.job_id), one_line(request.model), delay_s, one_line(problem)
            )
        if done and is_late:
            self._late.begin(request, tries, problem)
        return True

    def _attempt(self, record: Record, request: JobRequested, attempt: int, began: float) -> list[Event]:
        if attempt > self._settings.worker.max_attempts:
            raise JobError("crashed", f"job must end within {self._settings.worker.max_attempts} attempts: each ended its worker")
        name = f"{socket.gethostname()}-{self._settings.worker.slot}"
        log.info(
            "job %s of %s started, attempt %d: %s",
            one_line(request.job_id),
            one_line(request.model),
            attempt,
            one_line(request.recipe),
        )
        self._tell(JobStarted(model=request.model, job_id=request.job_id, recipe=request.recipe, attempt=attempt, worker=name))
        return JobRun(
            settings=self._settings,
            transport=self._transport,
            request=request,
            keep=self._work.keep,
            cancelled=lambda: self._is_cancelled(request.job_id),
            tell=self._tell,
            registry=self._models.refresh,
            child=self._child,
            stop=self._stop,
        ).run(began)

    def _end(self, record: Record, request: JobRequested, attempt: int, events: list[Event]) -> None:
        try:
            done = self._work.finish(record, outgoings(self._settings, self._transport, events))
        except SlotTaken:
            raise
        except Conflict as problem:
            log.error("job %s could not tell its outcome: %s", one_line(request.job_id), one_line(problem))
            events = [_failed(request, attempt, time.monotonic(), JobError("error", str(problem)))]
            done = self._work.finish(record, outgoings(self._settings, self._transport, events))
        if not done:
            log.info("job %s was ended by another worker", one_line(request.job_id))
            return
        self._view.queue.end(request.model, request.job_id)
        self._late.end(request.job_id, was_late=tries_of(record) > self._settings.worker.max_put_off)
        log.info("job %s of %s %s", one_line(request.job_id), one_line(request.model), one_line(_said(events[-1]), 1_000))

    def _is_cancelled(self, job_id: str) -> bool:
        self._view.refresh()
        return job_id in self._view.queue.cancelled

    def _tell(self, event: Event) -> None:
        """Tell of progress, outside the transaction: it may be seen of an attempt that fails later."""
        self._sender.send(outgoing(self._settings, event))
        self._sender.flush(FLUSH_S)


def _failed(request: JobRequested, attempt: int, began: float, problem: JobError) -> JobFailed:
    return JobFailed(
        model=request.model,
        job_id=request.job_id,
        recipe=request.recipe,
        cause=CAUSES.get(problem.kind, "error"),
        message=str(problem)[:2000],
        attempt=attempt,
        duration_s=round(time.monotonic() - began, 3),
    )


def _said(event: Event) -> str:
    if isinstance(event, JobFinished):
        return f"{event.outcome} ({'; '.join(event.reasons)})"
    return f"failed: {event.message}" if isinstance(event, JobFailed) else type(event).__name__
