"""The newest blocks of a lane: means per signal, values behind them, and where each block began."""

from __future__ import annotations

from collections import deque

import numpy as np

from .blocks import Block
from .columns import Floats, Ints

Entry = tuple[Floats, Ints | None, int, tuple[int, int, float]]


class History:
    """Remember the newest `capacity` blocks as (means, values present or None for all, rows, first row); blocks count from 0."""

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self.entries: deque[Entry] = deque(maxlen=capacity)

    def push(self, block: Block) -> None:
        """Add a block."""
        self.entries.append((block.means, block.present, block.rows, block.first))
        self.count += 1

    def since(self, block: int) -> list[Entry]:
        """Return the blocks from number `block` on that are still remembered, oldest first."""
        skip = max(0, block - (self.count - len(self.entries)))
        return list(self.entries)[skip:]

    def rewrite(self, signal: int, means: Floats) -> None:
        """Replace the newest means of one signal, because its transform changed."""
        for back, mean in enumerate(means[::-1].tolist()[: len(self.entries)], 1):
            old, present, rows, first = self.entries[-back]
            new = old.copy()
            new[signal] = mean
            self.entries[-back] = (new, present, rows, first)


def series(entries: list[Entry], signal: int, width: int) -> tuple[Floats, Floats]:
    """Return means and the values behind them of a signal; from `width` on, the missing share of signal - width."""
    column = signal if signal < width else signal - width
    rows = np.array([entry[2] for entry in entries], np.float64)
    present = np.array([entry[2] if entry[1] is None else entry[1][column] for entry in entries], np.float64)
    if signal >= width:
        return 1.0 - present / rows, rows
    return np.array([entry[0][column] for entry in entries], np.float64), present
