"""What needs a look in a stretch of the log, in the order of the rows that caused it: blocks, and counts that episodes wait for.

Most blocks say nothing. A lane's detectors see all its blocks up to the first that says something at once; only that one is
looked at in its turn, and those before it are remembered then.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from .blocks import Flow
from .lanes import Fired, Lane

# The order of what is told at one record.
INPUTS, OUTPUT, ERROR, METRICS, DUE = range(5)
At = tuple[int, int]


class Agenda:
    """The flows of a stretch; `is_open` says whether a single signal of a model has an episode, which every block of it feeds."""

    def __init__(self, flows: list[tuple[int, Flow]], is_open: Callable[[int, str], bool]) -> None:
        self._flows = flows
        self._is_open = is_open
        self._heap: list[tuple[int, int, str, Any]] = []
        self._aims: dict[At, tuple[int, int]] = {}
        self._loud: dict[At, tuple[int, Fired]] = {}
        self._seen: dict[At, int] = {}
        self._dues: set[tuple[int, int, str]] = set()
        for number in range(len(flows)):
            self._begin(number)

    def _begin(self, number: int) -> None:
        rank, flow = self._flows[number]
        for run in flow.busy:
            lane = flow.bank.taps[flow.lane(run)]
            assert isinstance(lane, Lane)
            if flow.is_slow(run) or (len(lane.signals) == 1 and self._is_open(lane.model, lane.signals[0])):
                self._aim((number, run))
                continue
            stop = flow.stop[run]
            block, fired = lane.scan(flow.full, flow.next[run], stop)
            if block == stop:
                self._seen[number, run] = stop
                continue
            self._found((number, run), block, fired)
            self._put((number, run), (flow.full.closing[block], block), rank)

    def _found(self, at: At, block: int, fired: Fired) -> None:
        self._loud[at] = block, fired
        self._seen[at] = block if fired is None else block + 1

    def _put(self, at: At, aim: tuple[int, int], rank: int) -> None:
        self._aims[at] = aim
        # One record may close blocks of several versions; which lane is older depends on the batch.
        heapq.heappush(self._heap, (aim[0], rank, f"{lane_of(self._flows[at[0]][1], at[1]).version:012d}", at))

    def add_due(self, order: int, slot: int, signal: str) -> None:
        """Add a count that an episode reaches."""
        if (order, slot, signal) not in self._dues:
            self._dues.add((order, slot, signal))
            heapq.heappush(self._heap, (order, DUE, f"{slot} {signal}", (slot, signal)))

    def visits(self) -> Iterator[tuple[int, int, Any]]:
        """Yield (order, rank, what), `what` for DUE (slot, signal), else (lane, block, fired); then remember what is left."""
        while self._heap:
            order, rank, _, what = heapq.heappop(self._heap)
            if rank == DUE:
                yield order, rank, what
                continue
            aim = self._aims.get(what)
            if aim is None or aim[0] != order:
                continue
            del self._aims[what]
            yield order, rank, self._reach(what, aim[1])
            self._aim(what)
        for _, flow in self._flows:
            for run in flow.busy:
                if flow.next[run] < flow.stop[run]:
                    _remember(flow, run, flow.stop[run])

    def _reach(self, at: At, number: int) -> Any:
        flow, run = self._flows[at[0]][1], at[1]
        fired: Fired = None
        if not flow.is_slow(run):
            _remember(flow, run, number)
            loud = self._loud.get(at)
            if loud is not None and loud[0] == number:
                fired = loud[1]
            elif number < self._seen.get(at, 0):
                fired = {}
            self._seen[at] = max(self._seen.get(at, 0), number + 1)
        return flow, run, fired

    def _aim(self, at: At) -> None:
        (rank, flow), run = self._flows[at[0]], at[1]
        if flow.is_slow(run):
            order = flow.peek(run)
            number = -1
        else:
            number = self._next(at, flow, run)
            order = flow.full.closing[number] if number < flow.stop[run] else None
        if order is not None:
            self._put(at, (order, number), rank)

    def _next(self, at: At, flow: Flow, run: int) -> int:
        lane, begin, stop = lane_of(flow, run), flow.next[run], flow.stop[run]
        if len(lane.signals) == 1 and self._is_open(lane.model, lane.signals[0]):
            return begin
        loud = self._loud.get(at)
        if loud is not None and loud[0] >= begin:
            return loud[0]
        number, fired = lane.scan(flow.full, max(begin, self._seen.get(at, 0)), stop)
        if number < stop:
            self._found(at, number, fired)
        else:
            self._seen[at] = stop
        return number

    def remember(self, lane: Lane, order: int) -> None:
        """Let a lane remember its blocks that were closed up to a record."""
        for _, flow in self._flows:
            run = flow.run(lane.index) if flow.bank is lane.bank else None
            if run is not None and not flow.is_slow(run) and flow.stop[run]:
                _remember(flow, run, bisect_right(flow.full.closing, order, flow.next[run], flow.stop[run]))

    def follow(self, lane: Lane, order: int) -> None:
        """Look at every block of a lane from here on, because an episode of its signal was opened by another lane."""
        self.remember(lane, order)
        for number, (_, flow) in enumerate(self._flows):
            run = flow.run(lane.index) if flow.bank is lane.bank else None
            if run is not None and not flow.is_slow(run):
                self._aim((number, run))


def lane_of(flow: Flow, run: int) -> Lane:
    """Return the lane of a run."""
    lane = flow.bank.taps[flow.lane(run)]
    assert isinstance(lane, Lane)
    return lane


def _remember(flow: Flow, run: int, stop: int) -> None:
    begin = flow.next[run]
    if begin < stop and not flow.is_slow(run):
        lane_of(flow, run).remember(flow.full, begin, stop)
        flow.next[run] = stop
