"""Stream time: the running maximum of a topic's record time stamps, as far as they can be believed; a function of the log alone.

One record whose clock is wrong must not move the time of all: what is pending would be too old at once. So a time stamp beyond the
year 2100 (micro- or nanoseconds) never counts, and one that lies more than an hour ahead of the topic's time counts only once others
confirm it: after three records in a row that lie that far ahead, the topic has got as far as the earliest of them. Until then these
have the time of the records before them. A gap in the traffic costs no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .columns import Ints

START_MS = -1
YEAR_2000_MS = 946_684_800_000
YEAR_2100_MS = 4_102_444_800_000
JUMP_MS = 3_600_000
CONFIRMING = 3

State = tuple[int, int, int]


class StreamTime:
    """The time of one topic, and the records in a row that lie too far ahead of it: how many, and the earliest."""

    __slots__ = ("_ahead", "_earliest_ms", "time_ms")

    def __init__(self, state: Sequence[int] = (START_MS, 0, 0)) -> None:
        self.time_ms, self._ahead, self._earliest_ms = state

    @property
    def state(self) -> State:
        """Return all there is to it, to begin another one with."""
        return self.time_ms, self._ahead, self._earliest_ms

    def advance(self, stamps_ms: Ints) -> Ints:
        """Take time stamps in offset order; return the stream time at each."""
        if not len(stamps_ms):
            return stamps_ms
        times = np.maximum.accumulate(np.maximum(stamps_ms, self.time_ms))
        if not self._ahead and self._is_steady(times):
            self.time_ms = int(times[-1])
            return times
        return np.fromiter(map(self._advance_one, stamps_ms.tolist()), np.int64, len(stamps_ms))

    def goes_on(self, first_ms: int, last_ms: int) -> bool:
        """Return True if rising time stamps from `first_ms` to `last_ms` are stream times as they are."""
        return not self._ahead and YEAR_2000_MS <= self.time_ms <= first_ms and last_ms - self.time_ms <= JUMP_MS

    def _is_steady(self, times: Ints) -> bool:
        """Return True if no step of running maxima has to be confirmed."""
        if times[-1] > YEAR_2100_MS:
            return False
        if self.time_ms >= YEAR_2000_MS and times[-1] - self.time_ms <= JUMP_MS:
            return True
        before = np.empty_like(times)
        before[0], before[1:] = self.time_ms, times[:-1]
        return bool(((times - before <= JUMP_MS) | (before < YEAR_2000_MS)).all())

    def _advance_one(self, stamp_ms: int) -> int:
        if stamp_ms > YEAR_2100_MS:
            return self.time_ms
        # Before the year 2000 it is no time at all yet: seconds for milliseconds, or counted from 0.
        if self.time_ms >= YEAR_2000_MS and stamp_ms - self.time_ms > JUMP_MS:
            self._earliest_ms = min(self._earliest_ms, stamp_ms) if self._ahead else stamp_ms
            self._ahead += 1
            if self._ahead < CONFIRMING:
                return self.time_ms
            self.time_ms, self._ahead = self._earliest_ms, 0
            return self._advance_one(stamp_ms)
        self.time_ms, self._ahead = max(self.time_ms, stamp_ms), 0
        return self.time_ms
