"""The newest blocks of a lane in a ring: means per signal, rows behind them, and where each block began."""

from __future__ import annotations

import numpy as np

from .columns import Floats, Ints


class History:
    """Remember the newest `capacity` blocks; blocks are numbered from 0 since the lane began."""

    def __init__(self, width: int, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.means = np.full((capacity, width), np.nan)
        self.present = np.zeros((capacity, width), np.int32)
        self.rows = np.zeros(capacity, np.int64)
        self.first = np.zeros((capacity, 2), np.int64)
        self.ts = np.zeros(capacity)

    def push(self, means: Floats, present: Ints, rows: int, first: tuple[int, int, float]) -> None:
        """Add a block: z means (NaN where nothing was present), values present, and offset, label offset, time of its first row."""
        at = self.count % self.capacity
        self.means[at] = means
        self.present[at] = present
        self.rows[at] = rows
        self.first[at] = first[:2]
        self.ts[at] = first[2]
        self.count += 1

    def since(self, block: int) -> Ints:
        """Return ring indices of the blocks from number `block` on that are still remembered, oldest first."""
        return np.arange(max(block, self.count - self.capacity, 0), self.count) % self.capacity

    def rewrite(self, signal: int, means: Floats) -> None:
        """Replace the newest means of one signal, because its transform changed."""
        kept = means[-min(len(means), self.capacity, self.count) :]
        at = np.arange(self.count - len(kept), self.count) % self.capacity
        self.means[at, signal] = kept
