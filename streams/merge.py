"""One order across the topics of a partition: records are let go by stream time, as Kafka Streams does (KIP-353, KIP-695).

A topic's stream time is the running maximum of its record time stamps, as far as they can be believed (`stream_time.py`). A record is
let go once no other topic can still bring one that comes before it: the other topic is at its end, or has got as far. What is let go at
once is a cut of the merged log, so batches in a row are the same log however the topics happened to be fetched.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from ..detectors.stream_time import START_MS, StreamTime

NOTHING = (START_MS, 0, 0)
T = TypeVar("T")
Released = tuple[list[T], list[int]]


class TopicLog(Generic[T]):
    """The records of one topic that wait for the others."""

    __slots__ = ("_clock", "at_end", "items", "start", "times_ms", "timestamps_ms")

    def __init__(self, clock: StreamTime) -> None:
        self._clock = clock
        self.items: list[T] = []
        self.timestamps_ms: list[int] = []
        self.times_ms: list[int] = []
        self.start = 0
        self.at_end = False

    @property
    def time_ms(self) -> int:
        """Return how far the topic has got."""
        return self._clock.time_ms

    def __len__(self) -> int:
        """Return the number of records that wait."""
        return len(self.items) - self.start

    def add(self, items: list[T], timestamps_ms: list[int]) -> None:
        """Add records in offset order."""
        if not self:
            self.items, self.timestamps_ms, self.times_ms, self.start = [], [], [], 0
        times = timestamps_ms
        # A sort of what is in order is a tenth of the running maximum, which is then the time stamps themselves.
        if not self._clock.goes_on(timestamps_ms[0], timestamps_ms[-1]) or timestamps_ms != sorted(timestamps_ms):
            times = self._clock.advance(np.array(timestamps_ms, np.int64)).tolist()
        else:
            self._clock.time_ms = timestamps_ms[-1]
        self.items += items
        self.timestamps_ms += timestamps_ms
        self.times_ms += times

    def take(self, stop: int) -> Released[T]:
        """Return the records up to index `stop` of the buffer and let go of them."""
        start = self.start
        taken = self.items[start:stop], self.timestamps_ms[start:stop]
        self.start = stop
        if stop * 2 > len(self.items):
            del self.items[:stop], self.timestamps_ms[:stop], self.times_ms[:stop]
            self.start = 0
        return taken


class Merge(Generic[T]):
    """The merge of the topics of one partition; `kinds` in the order taken at equal time, `clocks` from the monitor's state."""

    def __init__(self, kinds: Sequence[str], clocks: Mapping[str, StreamTime]) -> None:
        self.kinds = tuple(kinds)
        # Of its own: what is read is ahead of what was let go.
        states = {kind: clocks[kind].state if kind in clocks else NOTHING for kind in kinds}
        self.logs: dict[str, TopicLog[T]] = {kind: TopicLog(StreamTime(state)) for kind, state in states.items()}

    def add(self, kind: str, items: list[T], timestamps_ms: list[int], *, at_end: bool) -> None:
        """Add records of one topic; `at_end` says that its end was seen after the last of them."""
        log = self.logs[kind]
        if items:
            log.add(items, timestamps_ms)
        if items or at_end:
            log.at_end = at_end

    def wanted(self, kind: str) -> bool:
        """Return True if records of this topic are what the merge waits for, or could be taken at once."""
        log = self.logs[kind]
        return not log or kind == self._behind()

    def release(self) -> dict[str, Released[T]]:
        """Return what may be let go, by topic; topics with nothing are left out."""
        return {kind: self.logs[kind].take(stop) for kind, stop in self._stops().items() if stop > self.logs[kind].start}

    def _behind(self) -> str | None:
        waiting = [(self.logs[kind].time_ms, rank) for rank, kind in enumerate(self.kinds) if not self.logs[kind].at_end]
        return self.kinds[min(waiting)[1]] if waiting else None

    def _stops(self) -> dict[str, int]:
        stops = {}
        for rank, kind in enumerate(self.kinds):
            log = self.logs[kind]
            stop = len(log.items)
            for other_rank, other in enumerate(self.kinds):
                bound = self.logs[other]
                if other == kind or bound.at_end:
                    continue
                # At equal time the other's next record comes first if its topic does.
                bisect = bisect_right if rank < other_rank else bisect_left
                stop = min(stop, bisect(log.times_ms, bound.time_ms, log.start))
            stops[kind] = stop
        return stops
