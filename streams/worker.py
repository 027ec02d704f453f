"""The worker: one job after another, each in a child process, each ended in one transaction with what it publishes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import msgspec

from ..schemas.errors import BrokerUnavailable, Conflict, DriftloopError, EventInvalid, JobError, SlotTaken
from ..schemas.events import (
    Cause,
    Event,
    JobCommand,
    JobFailed,
    JobFinished,
    JobRequested,
    JobStarted,
)
from ..schemas.records import Record
from ..settings import Settings
from .fold_guard import FoldGuard, dead_letter
from .job_run import JobLost, JobRun
from .job_view import JobView
from .log_text import shown
from .outgoing import outgoing, outgoings
from .transport import Transport

TAKE_S = 0.2
RETRY_S = 2.0
FLUSH_S = 5.0
CAUSES: dict[str, Cause] = {cause: cause for cause in ("error", "timeout", "memory", "crashed", "cancelled")}
log = logging.getLogger("driftloop.worker")


class Worker:
    """The jobs of the jobs topic, one after another.

    A job that another start of this worker began is begun again, up to `worker.max_attempts`.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._work = transport.work(settings.worker_group, settings.topic("jobs"), settings.worker.slot)
        self._view = JobView(settings, transport)
        self._sender = transport.sender()
        self._guard = FoldGuard(log)
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a job in hand is given up then and comes again. Raises SlotTaken once another has the slot."""
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    self.step(TAKE_S)
                except SlotTaken:
                    raise
                except (BrokerUnavailable, Conflict) as problem:
                    log.warning("work is tried again in %g s: %s", RETRY_S, problem)
                    stop.wait(RETRY_S)
        finally:
            self.close()

    def step(self, timeout_s: float = 0.0) -> bool:
        """Do one job if there is one; return False if there was none. Raises Conflict, BrokerUnavailable."""
        record = self._work.take(timeout_s)
        if record is None:
            return False
        commands: list[Any] = []
        problem = self._guard.take(record, JobCommand, commands.append)
        if problem is None:
            problem = self._handle(record, commands[0])
        if problem is not None:
            self._set_aside(record, problem)
        return True

    def _handle(self, record: Record, command: JobCommand) -> EventInvalid | None:
        """Do what a command asks for; return the fault of ours that kept it from being done."""
        try:
            if isinstance(command, JobRequested):
                self._do(record, command)
            else:
                # Who waits for a job sees its cancellation through the view; the command itself asks for nothing.
                self._work.finish(record, [])
        except (SlotTaken, BrokerUnavailable):
            raise
        except Exception as fault:
            log.exception("a record of %s met a fault of ours", record.topic)
            return self._guard.refuse(EventInvalid("processing_error", f"{type(fault).__name__}: {fault}"))
        return None

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
                log.error("a dead letter for %s is refused: %s", topic, shown(refused))
        self._work.finish(record, [])

    def close(self) -> None:
        """Leave the group and let go of everything."""
        self._view.close()
        self._sender.close()
        self._work.close()

    def _do(self, record: Record, request: JobRequested) -> None:
        self._view.refresh()
        if request.job_id in self._view.ended:
            self._work.finish(record, [])
            return
        try:
            attempt = self._work.attempt(record)
        except Conflict as problem:
            log.info("job %s is another worker's: %s", request.job_id, problem)
            return
        began = time.monotonic()
        try:
            events = self._attempt(record, request, attempt, began)
        except JobLost:
            log.info("job %s is given up: it belongs to another worker or this one stops", request.job_id)
            return
        except BrokerUnavailable:
            raise
        except DriftloopError as problem:
            kind = problem.kind if isinstance(problem, JobError) else "error"
            events = [_failed(request, attempt, began, JobError(kind, str(problem)))]
        except Exception as problem:
            log.exception("job %s met a fault of ours", request.job_id)
            events = [_failed(request, attempt, began, JobError("error", f"{type(problem).__name__}: {problem}"))]
        self._end(record, request, attempt, events)

    def _attempt(self, record: Record, request: JobRequested, attempt: int, began: float) -> list[Event]:
        if request.job_id in self._view.cancelled:
            raise JobError("cancelled", "job was taken back before it began")
        if attempt > self._settings.worker.max_attempts:
            raise JobError("crashed", f"job must end within {self._settings.worker.max_attempts} attempts: each ended its worker")
        name = f"{socket.gethostname()}-{self._settings.worker.slot}"
        self._tell(JobStarted(model=request.model, job_id=request.job_id, recipe=request.recipe, attempt=attempt, worker=name))
        return JobRun(
            settings=self._settings,
            transport=self._transport,
            request=request,
            keep=self._work.keep,
            cancelled=lambda: self._is_cancelled(request.job_id),
            tell=self._tell,
            stop=self._stop,
        ).run(began)

    def _end(self, record: Record, request: JobRequested, attempt: int, events: list[Event]) -> None:
        try:
            done = self._work.finish(record, outgoings(self._settings, self._transport, events))
        except SlotTaken:
            raise
        except Conflict as problem:
            log.error("job %s could not tell its outcome: %s", shown(request.job_id), shown(problem))
            events = [_failed(request, attempt, time.monotonic(), JobError("error", str(problem)))]
            done = self._work.finish(record, outgoings(self._settings, self._transport, events))
        if not done:
            log.info("job %s was ended by another worker", request.job_id)
            return
        self._view.ended.add(request.job_id)
        log.info("job %s: %s", request.job_id, _said(events[-1]))

    def _is_cancelled(self, job_id: str) -> bool:
        self._view.refresh()
        return job_id in self._view.cancelled

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
