"""Why events of the SDK were not sent: counted by reason, each told once a minute with its first example."""

from __future__ import annotations

import threading
import time

from ..schemas.errors import DriftloopError

TELL_EVERY_S = 60.0
MAX_REASONS = 100
OTHER = "another reason"


def reason_of(problem: DriftloopError) -> str:
    """Return what a problem has in common with others of its kind: the rule, without the value that breaks it."""
    return str(problem).partition(", got ")[0]


class Reasons:
    """The reasons of one client, and how many events each has cost."""

    def __init__(self) -> None:
        # A handler of signals may come back to it in the same thread.
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}
        self._tell_at: dict[str, float] = {}

    def add(self, problem: DriftloopError) -> int:
        """Count a problem; return how often its reason was met so far if that is to be told now, else 0."""
        reason, now = reason_of(problem), time.monotonic()
        with self._lock:
            if reason not in self._counts and len(self._counts) >= MAX_REASONS:
                reason = OTHER
            count = self._counts[reason] = self._counts.get(reason, 0) + 1
            if now < self._tell_at.get(reason, now):
                return 0
            self._tell_at[reason] = now + TELL_EVERY_S
            return count

    def counts(self) -> dict[str, int]:
        """Return how many events each reason has cost, the most costly first."""
        with self._lock:
            return dict(sorted(self._counts.items(), key=lambda pair: -pair[1]))
