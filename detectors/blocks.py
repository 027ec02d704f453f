"""Sums of standardised rows over blocks, for many lanes at once.

A lane is a bundle of signals that share rows and a block clock, such as all inputs of one model. Rows are standardised, clipped and
rounded to 2^-20 of a standard deviation: sums of such numbers are exact in float64, so they do not depend on how the log was cut.
Lanes in warm-up are fed chunk by chunk, all others by a few numpy calls over the whole batch. Of a `raw` lane nothing is summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .columns import Floats, Ints
from .scratch import Scratch

UNIT = float(2**20)


@dataclass(slots=True)
class Feed:
    """The rows of one batch for the lanes of one bank, in merged order; columns of length n, `values` (n, width)."""

    lane: Ints
    values: Floats
    order: Ints
    offset: Ints
    label_offset: Ints
    ts: Floats

    def take(self, rows: Ints) -> Feed:
        """Return the rows at these indices."""
        places = (self.order[rows], self.offset[rows], self.label_offset[rows])
        return Feed(self.lane[rows], self.values[rows], *places, self.ts[rows])


@dataclass(slots=True)
class Block:
    """A full block: means in z and present values per signal, where its first row lies, and the row that closed it.

    `scores`: means in standard deviations of a block, NaN where nothing was present. `present`: None where nothing was missing.
    """

    means: Floats
    present: Ints | None
    scores: list[float]
    rows: int
    first: tuple[int, int, float]
    row: int
    last: tuple[int, int, float]


@dataclass(slots=True)
class Blocks:
    """The full blocks of a batch, those of one lane in a row; columns of length n, see Block.

    `present` is None where nothing was missing in any block; `gaps` says in which something was. `closing`: order of the last row.
    """

    means: Floats
    present: Ints | None
    gaps: list[bool]
    scores: list[list[float]]
    rows: list[int]
    first: Ints
    first_ts: Floats
    row: list[int]
    closing: list[int]


class Tap(Protocol):
    """What takes the raw rows of a lane in warm-up."""

    def absorb(self, feed: Feed, rows: slice) -> None:
        """Keep what the warm-up needs of these rows."""


class Bank:
    """Transforms and running block sums of all lanes with `width` signals, in arrays over lanes that grow by doubling."""

    def __init__(self, width: int, clip_sd: float, scratch: Scratch | None = None) -> None:
        self.width = width
        self.limit = max(clip_sd, 1.0) * UNIT
        self.taps: list[Tap | None] = []
        self._free: list[int] = []
        self.center = np.zeros((0, width))
        self.factor = np.zeros((0, width))
        self.mean = np.zeros((0, width))
        self.weight = np.zeros((0, width))
        self.sums = np.zeros((0, width))
        self.missing = np.zeros((0, width), np.int64)
        self.fill = np.zeros(0, np.int64)
        self.block_rows = np.ones(0, np.int64)
        self.slow = np.zeros(0, np.bool_)
        self.raw = np.zeros(0, np.bool_)
        self._scratch = Scratch() if scratch is None else scratch
        self.first = np.zeros((0, 2), np.int64)
        self.first_ts = np.zeros(0)

    def add(self, tap: Tap) -> int:
        """Return the index of a new lane, whose raw rows go to `tap` while it is slow."""
        if self._free:
            lane = self._free.pop()
            self.taps[lane] = tap
            return lane
        self.taps.append(tap)
        if len(self.taps) > len(self.fill):
            self._grow(max(4, 2 * len(self.fill)))
        return len(self.taps) - 1

    def drop(self, lane: int) -> None:
        """Forget a lane; its index is used again."""
        self.taps[lane] = None
        self._free.append(lane)

    @property
    def is_empty(self) -> bool:
        """Return whether no lane lies here."""
        return len(self._free) == len(self.taps)

    def restart(self, lane: int, block_rows: int) -> None:
        """Begin a new block of `block_rows` at the next row."""
        self.block_rows[lane] = block_rows
        self.fill[lane] = 0
        self.sums[lane] = 0.0
        self.missing[lane] = 0

    def _grow(self, lanes: int) -> None:
        for name in (
            "center",
            "factor",
            "mean",
            "weight",
            "sums",
            "missing",
            "fill",
            "block_rows",
            "slow",
            "raw",
            "first",
            "first_ts",
        ):
            old = getattr(self, name)
            new = np.zeros((lanes, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def standardise(self, values: Floats, lanes: Ints | slice) -> Floats:
        """Return z in whole units of 2^-20, NaN where missing; it lasts until the next call."""
        z = self._scratch.take(values.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(values, self.center[lanes], out=z)
            z *= self.factor[lanes]
        np.clip(z, -self.limit, self.limit, out=z)
        np.rint(z, out=z)
        return z

    def judge(self, sums: Floats, missing: Ints | None, lanes: Ints) -> tuple[Floats, list[list[float]]]:
        """Return means in z, and in standard deviations of a block, of full blocks of these lanes; (n, width) each."""
        rows = self.block_rows[lanes][:, None]
        if missing is None:
            means = sums / (rows * UNIT)
            return means, ((means - self.mean[lanes]) * self.weight[lanes]).tolist()
        present = rows - missing
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / (present * UNIT)
        return means, ((means - self.mean[lanes]) * self.weight[lanes] * np.sqrt(present / rows)).tolist()


def sums_of(z: Floats, start: Ints) -> tuple[Floats, Ints | None]:
    """Return sums of z and counts of what is missing over the rows from each start to the next; None where nothing is missing."""
    sums = np.add.reduceat(z, start, axis=0)
    # A gap makes its sum NaN, so that whole columns without one need no second look.
    columns = np.flatnonzero(np.isnan(sums).any(axis=0))
    if not len(columns):
        return sums, None
    some = z[:, columns]
    gone = np.isnan(some)
    some[gone] = 0.0
    sums[:, columns] = np.add.reduceat(some, start, axis=0)
    missing = np.zeros(sums.shape, np.int64)
    missing[:, columns] = np.add.reduceat(gone.astype(np.int64), start, axis=0)
    return sums, missing


class Flow:
    """The way of one batch through a bank: it hands out each lane's full blocks one after the other, in the lane's order.

    The caller takes blocks of all lanes in the order of the rows that closed them; when it changes a lane's transform or block
    length on the way, it says so by `bank.slow`, and what was summed ahead is summed again.
    """

    full: Blocks

    def __init__(self, bank: Bank, feed: Feed) -> None:
        self.bank = bank
        if len(feed.lane) > 1 and (feed.lane[1:] < feed.lane[:-1]).any():
            feed = feed.take(np.argsort(feed.lane, kind="stable"))
        self.feed = feed
        change = np.flatnonzero(feed.lane[1:] != feed.lane[:-1]) + 1
        starts = np.concatenate((np.zeros(1, np.int64), change))
        self._lanes: Ints = feed.lane[starts]
        self._lane_list: list[int] = self._lanes.tolist()
        self._ends: Ints = np.append(change, len(feed.lane))
        slow = bank.slow[self._lanes]
        self._slow: list[bool] = slow.tolist()
        self._cursor: list[int] = starts.tolist()
        self.next = [0] * len(starts)
        self.stop = [0] * len(starts)
        self.busy: list[int] = []
        if slow.any():
            self._warm(np.flatnonzero(slow), starts)
        fast = np.flatnonzero(~slow)
        if len(fast):
            self._sum_ahead(fast, starts)

    def _warm(self, slow: Ints, starts: Ints) -> None:
        """Hand over the rows of raw lanes that fill no block."""
        bank, lane = self.bank, self._lanes[slow]
        rows = self._ends[slow] - starts[slow]
        quiet = bank.raw[lane] & (bank.fill[lane] + rows < bank.block_rows[lane])
        self.busy += slow[~quiet].tolist()
        bank.fill[lane[quiet]] += rows[quiet]
        for run in slow[quiet].tolist():
            begin, end = self._cursor[run], int(self._ends[run])
            tap = bank.taps[self._lane_list[run]]
            if tap is not None:
                tap.absorb(self.feed, slice(begin, end))
            self._cursor[run] = end

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield (order, run) of the first full block of every lane that has one; a run is a lane's number in this batch."""
        for run in self.busy:
            order = self.peek(run)
            if order is not None:
                yield order, run

    def lane(self, run: int) -> int:
        """Return the lane of a run."""
        return self._lane_list[run]

    def run(self, lane: int) -> int | None:
        """Return the run of a lane, or None: it has no rows in this batch."""
        at = int(np.searchsorted(self._lanes, lane))
        return at if at < len(self._lane_list) and self._lane_list[at] == lane else None

    def is_slow(self, run: int) -> bool:
        """Return whether the blocks of a run are summed one by one."""
        return self._slow[run]

    def peek(self, run: int) -> int | None:
        """Return the order of the row that closes the run's next full block, or None: the rest of the batch fills no block."""
        if not self._slow[run]:
            at = self.next[run]
            return self.full.closing[at] if at < self.stop[run] else None
        bank, lane, cursor = self.bank, self._lane_list[run], self._cursor[run]
        take = int(min(bank.block_rows[lane] - bank.fill[lane], self._ends[run] - cursor))
        if take > 0:
            self._feed_slowly(lane, slice(cursor, cursor + take))
            self._cursor[run] = cursor + take
        if bank.fill[lane] < bank.block_rows[lane]:
            return None
        return int(self.feed.order[self._cursor[run] - 1])

    def take(self, run: int) -> Block:
        """Return the block that `peek` announced."""
        if not self._slow[run]:
            at = self.next[run]
            self.next[run] += 1
            return self._block(self.full, at)
        bank, lane, row = self.bank, self._lane_list[run], self._cursor[run] - 1
        sums, missing = bank.sums[lane : lane + 1].copy(), bank.missing[lane : lane + 1].copy()
        first = bank.first[lane : lane + 1].copy(), bank.first_ts[lane : lane + 1].copy()
        block = self._block(self._blocks((sums, missing, np.array([lane])), first, np.array([row])), 0)
        bank.restart(lane, block.rows)
        return block

    def _blocks(self, what: tuple[Floats, Ints | None, Ints], first: tuple[Ints, Floats], row: Ints) -> Blocks:
        sums, missing, lanes = what
        gaps: list[bool] = [False] * len(row)
        present = None
        if missing is not None and missing.any():
            some = np.asarray(missing.any(axis=1))
            gaps = some.tolist()
            present = self.bank.block_rows[lanes][:, None] - missing
        means, scores = self.bank.judge(sums, missing if present is not None else None, lanes)
        rows = self.bank.block_rows[lanes].tolist()
        return Blocks(means, present, gaps, scores, rows, *first, row.tolist(), self.feed.order[row].tolist())

    def _block(self, blocks: Blocks, at: int) -> Block:
        feed, row = self.feed, blocks.row[at]
        present = blocks.present[at] if blocks.present is not None and blocks.gaps[at] else None
        first = (int(blocks.first[at, 0]), int(blocks.first[at, 1]), float(blocks.first_ts[at]))
        last = (int(feed.offset[row]), int(feed.label_offset[row]), float(feed.ts[row]))
        return Block(blocks.means[at], present, blocks.scores[at], blocks.rows[at], first, row, last)

    def handled(self, run: int, block: Block) -> None:
        """Go on after a block; if its handling made the lane slow, the rows after it are fed again."""
        lane = self._lane_list[run]
        if not self._slow[run] and self.bank.slow[lane]:
            self._slow[run] = True
            self._cursor[run] = block.row + 1
            self.bank.restart(lane, int(self.bank.block_rows[lane]))

    def _feed_slowly(self, lane: int, rows: slice) -> None:
        bank, feed = self.bank, self.feed
        if bank.fill[lane] == 0:
            bank.first[lane] = feed.offset[rows.start], feed.label_offset[rows.start]
            bank.first_ts[lane] = feed.ts[rows.start]
        tap = bank.taps[lane]
        if tap is not None:
            tap.absorb(feed, rows)
        if not bank.raw[lane]:
            sums, missing = sums_of(bank.standardise(feed.values[rows], slice(lane, lane + 1)), np.zeros(1, np.int64))
            bank.sums[lane] += sums[0]
            if missing is not None:
                bank.missing[lane] += missing[0]
        bank.fill[lane] += rows.stop - rows.start

    def _sum_ahead(self, fast: Ints, starts: Ints) -> None:
        bank, feed = self.bank, self.feed
        lane, begin, end = self._lanes[fast], starts[fast], self._ends[fast]
        size, fill = bank.block_rows[lane], bank.fill[lane]
        after = fill + end - begin
        if (after <= size).all():
            # Most batches of many models: no lane fills a block and goes on.
            run = head = tail = np.arange(len(fast))
            start, stop, full = begin, end, after == size
        else:
            number = (after - 1) // size + 1
            last = np.cumsum(number)
            head, tail = last - number, last - 1
            run = np.repeat(np.arange(len(fast)), number)
            within = np.arange(last[-1]) - head[run]
            start = begin[run] + np.maximum(0, within * size[run] - fill[run])
            stop = begin[run] + (within + 1) * size[run] - fill[run]
            full = stop <= end[run]
        sums, missing = self._sums(fast, start)
        first, first_ts = np.column_stack((feed.offset[start], feed.label_offset[start])), feed.ts[start]
        sums[head] += bank.sums[lane]
        whole = full[tail]
        bank.sums[lane] = np.where(whole[:, None], 0.0, sums[tail])
        before = bank.missing[lane]
        if missing is None and before.any():
            missing = np.zeros(sums.shape, np.int64)
        if missing is not None:
            missing[head] += before
            bank.missing[lane] = np.where(whole[:, None], 0, missing[tail])
        old = fill > 0
        first[head[old]], first_ts[head[old]] = bank.first[lane[old]], bank.first_ts[lane[old]]
        bank.first[lane], bank.first_ts[lane] = first[tail], first_ts[tail]
        bank.fill[lane] = after % size
        if full.any():
            self._finish_ahead(fast, (run, full, stop), (sums, missing), (first, first_ts))

    def _finish_ahead(
        self, fast: Ints, segments: tuple[Ints, Any, Ints], sums: tuple[Floats, Ints | None], first: tuple[Ints, Floats]
    ) -> None:
        """Keep the full blocks among the segments; the last of a lane may be begun only."""
        run, full, stop = segments
        kept = np.flatnonzero(full)
        mine, missing = run[kept], None if sums[1] is None else sums[1][kept]
        what = sums[0][kept], missing, self._lanes[fast[mine]]
        self.full = self._blocks(what, (first[0][kept], first[1][kept]), stop[kept] - 1)
        blocks = np.bincount(mine, minlength=len(fast))
        stops = np.cumsum(blocks)
        some = np.flatnonzero(blocks)
        runs = fast[some].tolist()
        for at, begin, end in zip(runs, (stops - blocks)[some].tolist(), stops[some].tolist(), strict=True):
            self.next[at], self.stop[at] = begin, end
        self.busy += runs

    def _sums(self, fast: Ints, start: Ints) -> tuple[Floats, Ints | None]:
        feed = self.feed
        values, lanes = feed.values, feed.lane
        if len(fast) < len(self._slow):
            # Rows of slow lanes lie between: leave them out, and move the starts to where the rows now are.
            keep = np.repeat(~np.array(self._slow), np.diff(self._ends, prepend=0))
            values, lanes = values[keep], lanes[keep]
            start = (np.cumsum(keep) - 1)[start]
        one = slice(int(lanes[0]), int(lanes[0]) + 1)
        return sums_of(self.bank.standardise(values, one if len(fast) == 1 else lanes), start)
