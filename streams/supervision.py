"""Supervision of the roles of one process: a role that fails starts again after a wait, beside the others, until it fails too often."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..schemas.config import ServiceConfig
from ..schemas.errors import BrokerUnavailable, DriftloopError, NotFound, SettingsInvalid, SlotTaken, SnapshotInvalid, TopicMismatch

# Starting again changes nothing about these: a person must.
FINAL = (SettingsInvalid, NotFound, SlotTaken, SnapshotInvalid, TopicMismatch, BrokerUnavailable, ImportError)
log = logging.getLogger("driftloop.serve")

Run = Callable[[threading.Event, threading.Event], None]
"""Runs a role until the first event is set; sets the second once it is ready."""


@dataclass(slots=True)
class Supervised:
    """One role under supervision; `on_loop` is called once, with a sentence, when it starts again for the third time in a row."""

    role: str
    run: Run
    config: ServiceConfig
    on_loop: Callable[[str, str], None]
    up: threading.Event = field(default_factory=threading.Event)
    _failures_s: deque[float] = field(default_factory=deque)
    _started_s: float = math.inf
    _settled: bool = False

    def work(self, stop: threading.Event) -> None:
        """Run the role until `stop` is set; raises what it failed with where that is final or came too often."""
        while True:
            self._started_s, self._settled = time.monotonic(), False
            try:
                self.run(stop, self.up)
                if not stop.is_set():
                    raise DriftloopError(f"role must run until it is stopped, got an early end of {self.role}")
                return
            except FINAL:
                raise
            except Exception as problem:
                self.up.clear()
                if stop.is_set() or not self._may_go_on(problem):
                    raise
            if stop.wait(self._wait_s()):
                return

    def settles(self, now_s: float) -> bool:
        """Return True once after each start: when the role has been ready for a whole window without a failure."""
        if self._settled or not self.up.is_set() or now_s - self._started_s < self.config.restart_window_s:
            return False
        self._settled = True
        return True

    def _may_go_on(self, problem: Exception) -> bool:
        now_s = time.monotonic()
        self._failures_s.append(now_s)
        while now_s - self._failures_s[0] > self.config.restart_window_s:
            self._failures_s.popleft()
        count = len(self._failures_s)
        if count > self.config.max_restarts:
            return False
        log.error(
            "%s failed and starts again in %g s (%d of %d): %s", self.role, self._wait_s(), count, self.config.max_restarts, problem
        )
        log.debug("%s failed", self.role, exc_info=problem)
        if count == min(3, self.config.max_restarts):
            self.on_loop(self.role, f"{self.role} failed {count} times within {self.config.restart_window_s:g} s: {problem}")
        return True

    def _wait_s(self) -> float:
        return min(self.config.restart_max_s, self.config.restart_min_s * 2.0 ** (len(self._failures_s) - 1))
