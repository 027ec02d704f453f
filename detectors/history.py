"""The newest blocks of a lane: means per signal, values behind them, and where each block began."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .blocks import Block, Blocks
from .columns import Floats, Ints

NO_PLACES: Ints = np.zeros((0, 2), np.int64)
NO_TIMES: Floats = np.zeros(0)


@dataclass(slots=True)
class Past:
    """Blocks that follow each other, all of `rows` rows: columns of length n, `means` and `present` (n, width).

    `present` is None where nothing was missing; `first` (n, 2) are the offsets of the prediction and label of a block's first row.
    """

    means: Floats
    present: Ints | None
    first: Ints
    ts: Floats
    rows: int

    def series(self, signal: int) -> tuple[Floats, Floats]:
        """Return means and the values behind them of a signal; from the width on, the missing share of signal - width."""
        count, width = self.means.shape
        column = signal if signal < width else signal - width
        rows = np.full(count, float(self.rows))
        present = rows if self.present is None else self.present[:, column].astype(np.float64)
        return (1.0 - present / rows, rows) if signal >= width else (self.means[:, column], present)


class History:
    """The newest `capacity` blocks; blocks count from 0. A lane's blocks are of one length until it begins anew."""

    def __init__(self, capacity: int, width: int) -> None:
        self.count = 0
        self.rows = 1
        self._capacity = capacity
        # The newest blocks lie in a row, so that a column is a slice; once the room is used up they move to the front.
        self._room = capacity + max(capacity // 4, 16)
        self._means = np.zeros((0, width))
        self._present: Ints | None = None
        self._first, self._ts = NO_PLACES, NO_TIMES
        self._end = 0

    def __len__(self) -> int:
        """Return how many blocks are remembered."""
        return min(self._end, self._capacity)

    def push(self, block: Block) -> None:
        """Add a block."""
        if self._end == len(self._ts):
            self._make_room(1)
        at = self._end
        self._means[at] = block.means
        if block.present is not None or self._present is not None:
            self._set_present(slice(at, at + 1), block.present, block.rows)
        self._first[at] = block.first[:2]
        self._ts[at] = block.first[2]
        self.rows = block.rows
        self._end += 1
        self.count += 1

    def extend(self, blocks: Blocks, start: int, stop: int) -> None:
        """Add the blocks [start, stop) of one lane."""
        if stop <= start:
            return
        self.count += stop - start
        start = max(start, stop - self._capacity)
        if self._end + stop - start > len(self._ts):
            self._make_room(stop - start)
        to = slice(self._end, self._end + stop - start)
        self._means[to] = blocks.means[start:stop]
        present = None if blocks.present is None else blocks.present[start:stop]
        if present is not None or self._present is not None:
            self._set_present(to, present, blocks.rows[start])
        self._first[to] = blocks.first[start:stop]
        self._ts[to] = blocks.first_ts[start:stop]
        self.rows = blocks.rows[start]
        self._end = to.stop

    def _make_room(self, blocks: int) -> None:
        """Make room for more blocks; lanes of barely seen models have none, and never need it."""
        if not len(self._ts):
            self._means = np.zeros((self._room, self._means.shape[1]))
            self._first, self._ts = np.zeros((self._room, 2), np.int64), np.zeros(self._room)
        elif self._end + blocks > self._room:
            self._move(self._capacity - blocks)

    def _move(self, keep: int) -> None:
        keep = min(keep, self._end)
        kept = slice(self._end - keep, self._end)
        for column in (self._means, self._present, self._first, self._ts):
            if column is not None:
                column[:keep] = column[kept].copy()
        self._end = keep

    def _set_present(self, to: slice, present: Ints | None, rows: int) -> None:
        if self._present is None:
            self._present = np.full(self._means.shape, self.rows, np.int64)
        self._present[to] = rows if present is None else present

    def newest(self, blocks: int) -> Past:
        """Return the newest so many blocks, or all that are remembered."""
        begin = self._end - min(blocks, len(self))
        kept = slice(begin, self._end)
        present = None if self._present is None else self._present[kept]
        return Past(self._means[kept], present, self._first[kept], self._ts[kept], self.rows)

    def since(self, block: int) -> Past:
        """Return the blocks from number `block` on that are still remembered, oldest first."""
        return self.newest(max(0, self.count - block))

    def from_offset(self, offset: int) -> Past:
        """Return the remembered blocks that begin at or after the prediction at `offset`."""
        known = self.newest(len(self))
        return self.newest(int((known.first[:, 0] >= offset).sum()))

    def rewrite(self, signal: int, means: Floats) -> None:
        """Replace the newest means of one signal, because its transform changed."""
        count = min(len(means), len(self))
        self._means[self._end - count : self._end, signal] = means[len(means) - count :]

    def restore(self, past: Past, count: int) -> None:
        """Take over what `newest` gave of a history of `count` blocks."""
        size = len(past.ts)
        if size:
            self._make_room(size)
        self.count, self.rows, self._end = count, past.rows, size
        self._means[:size], self._first[:size], self._ts[:size] = past.means, past.first, past.ts
        if past.present is not None:
            self._set_present(slice(0, size), past.present, past.rows)
