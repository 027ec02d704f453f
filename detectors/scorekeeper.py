"""When a version's metrics are told: after every so many joined rows of it, to the row, however the log was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .columns import Ints, JoinedRows
from .metric_sums import Window, WindowSums

Full = tuple[int, int]


class Scorekeeper:
    """Keep windows and totals of all versions, by version slot."""

    def __init__(self, every_rows: int) -> None:
        self.every_rows = every_rows
        self.windows = WindowSums()
        self.totals: dict[int, Window] = {}

    def add(self, slot: Ints, rows: JoinedRows, regression: Callable[[int], bool]) -> Iterator[Full]:
        """Add rows; yield (version slot, row index) whenever a window is full, and expect `turn` before going on."""
        if not len(slot):
            return
        numbers = {one: regression(one) for one in set(slot.tolist())}
        is_number = np.array([numbers[one] for one in slot.tolist()]) if any(numbers.values()) else None
        marks = self.windows.marks(slot, rows, is_number)
        count = self.windows.rows[slot] + _ranks(slot) + 1
        closing = np.flatnonzero(count % self.every_rows == 0)
        if not len(closing):
            self.windows.add(marks, slice(None))
            return
        window = (count - 1) // self.every_rows
        alone = len(numbers) == 1
        for number in range(int(window.max()) + 1):
            # Of a single version a window is one stretch, which needs no copy.
            chosen = slice(*np.searchsorted(window, (number, number + 1)).tolist()) if alone else window == number
            self.windows.add(marks, chosen)
            yield from ((int(slot[row]), row) for row in closing[window[closing] == number].tolist())

    def turn(self, slot: int) -> tuple[Window, Window]:
        """Begin a version's next window; return the one that is full, and the total with it."""
        window = self.windows.window(slot)
        total = self.totals.setdefault(slot, Window(0, 0))
        total.add(window)
        self.windows.clear(slot)
        return window, total

    def forget(self, slot: int) -> None:
        """Drop a version."""
        self.totals.pop(slot, None)
        self.windows.reserve(slot + 1)
        self.windows.clear(slot)


def _ranks(slot: Ints) -> Ints:
    """Return how many earlier rows have the same slot."""
    if (slot == slot[0]).all():
        return np.arange(len(slot))
    by_slot = np.argsort(slot, kind="stable")
    ordered = slot[by_slot]
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(ordered[1:] != ordered[:-1]) + 1))
    ranks = np.empty(len(slot), np.int64)
    ranks[by_slot] = np.arange(len(slot)) - np.repeat(starts, np.diff(np.append(starts, len(slot))))
    return ranks


def take_joined(rows: JoinedRows, at: Ints | slice) -> JoinedRows:
    """Return the rows at these indices."""
    first = (rows.order[at], rows.model[at], rows.version[at], rows.prediction_offset[at], rows.label_offset[at])
    return JoinedRows(*first, rows.ts[at], rows.output[at], rows.label[at], rows.error[at], rows.scores[at])
