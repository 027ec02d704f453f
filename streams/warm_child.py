"""The child of the next job, started ahead: it has torch imported and waits in its folder, so that a job does not wait for imports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .child_process import ChildProcess, Limits
from .job_space import job_space

CHILD_MODULE = "driftloop.streams.job_child"
WAIT = "wait"
PAUSE_S = 60.0
log = logging.getLogger("driftloop.worker")


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one job, and what starts the job's process there once the folder holds the job."""

    folder: Path
    start: Callable[[], ChildProcess]


class WarmChild:
    """At most one child that waits; the limits of time count from the moment its job begins, those of memory from its start."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: tuple[ExitStack, Path, ChildProcess] | None = None
        self._not_before = 0.0

    def start(self) -> None:
        """Start a child that waits, unless one does; where that fails, jobs start their own, and the next try comes in a minute."""
        if self._waiting is not None:
            ended = self._waiting[2].wait(0.0)
            if ended is None:
                return
            log.warning("the child that was started ahead ended: %s %s", ended.reason, ended.tail[-500:])
            self.close()
            self._not_before = time.monotonic() + PAUSE_S
        if time.monotonic() < self._not_before:
            return
        stack = ExitStack()
        try:
            folder = stack.enter_context(job_space())
            child = ChildProcess(CHILD_MODULE, [str(folder), WAIT], folder, self._limits, waits=True)
        except OSError as problem:
            stack.close()
            self._not_before = time.monotonic() + PAUSE_S
            log.warning("no child is started ahead: %s", problem)
            return
        self._waiting = stack, folder, child

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Give the place of a job: that of the child that waits, a new one where none does or it ended meanwhile."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[2].wait(0.0) is not None:
            waiting[0].close()
            waiting = None
        if waiting is None:
            with job_space() as folder:
                yield Place(folder, lambda: ChildProcess(CHILD_MODULE, [str(folder)], folder, self._limits))
            return
        stack, folder, child = waiting
        with stack:
            try:
                yield Place(folder, child.begin)
            finally:
                child.stop()

    def close(self) -> None:
        """End the child that waits, and remove its folder."""
        if self._waiting is not None:
            stack, _, child = self._waiting
            self._waiting = None
            child.stop()
            stack.close()
