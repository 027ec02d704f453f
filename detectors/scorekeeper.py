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
        self.windows.reserve(int(slot.max()) + 1)
        left = np.arange(len(slot))
        while len(left):
            mine = slot[left]
            by_slot = np.argsort(mine, kind="stable")
            ordered = mine[by_slot]
            starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(ordered[1:] != ordered[:-1]) + 1))
            rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
            room = self.every_rows - self.windows.rows[ordered]
            fits = np.sort(by_slot[rank < room])
            now = left[fits]
            self._add(slot[now], _take(rows, now), regression)
            closing = left[by_slot[rank == room - 1]]
            yield from ((int(slot[row]), int(row)) for row in closing)
            kept = np.ones(len(left), np.bool_)
            kept[fits] = False
            left = left[kept]

    def _add(self, slot: Ints, rows: JoinedRows, regression: Callable[[int], bool]) -> None:
        numbers = {one: regression(one) for one in np.unique(slot).tolist()}
        if not any(numbers.values()):
            self.windows.add_classes(slot, rows)
            return
        is_number = np.array([numbers[one] for one in slot.tolist()])
        counted = np.flatnonzero(is_number)
        self.windows.add_numbers(slot[counted], rows.error[counted])
        classes = np.flatnonzero(~is_number)
        self.windows.add_classes(slot[classes], _take(rows, classes))

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


def _take(rows: JoinedRows, at: Ints) -> JoinedRows:
    if len(at) == len(rows.order):
        return rows
    return take_joined(rows, at)


def take_joined(rows: JoinedRows, at: Ints | slice) -> JoinedRows:
    """Return the rows at these indices."""
    first = (rows.order[at], rows.model[at], rows.version[at], rows.prediction_offset[at], rows.label_offset[at])
    return JoinedRows(*first, rows.ts[at], rows.output[at], rows.label[at], rows.error[at], rows.scores[at])
