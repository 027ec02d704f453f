"""When a version's metrics are told: after every so many joined rows of it, to the row, however the log was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .columns import Ints, JoinedRows
from .metric_sums import Window, WindowSums

Full = tuple[int, int]


class Scorekeeper:
    """The windows and totals of all versions, by version slot."""

    def __init__(self, every_rows: int) -> None:
        self.every_rows = every_rows
        self.windows = WindowSums()
        self.totals: dict[int, Window] = {}

    def add(self, slot: Ints, rows: JoinedRows, regression: Callable[[int], bool]) -> Iterator[Full]:
        """Add rows; yield (version slot, row index) whenever a window is full, and expect `turn` before going on."""
        if not len(slot):
            return
        if (slot == slot[0]).all():
            yield from self._alone(slot, rows, regression(int(slot[0])))
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
        for number in range(int(window.max()) + 1):
            self.windows.add(marks, window == number)
            yield from ((int(slot[row]), row) for row in closing[window[closing] == number].tolist())

    def _alone(self, slot: Ints, rows: JoinedRows, is_number: bool) -> Iterator[Full]:
        """Add rows of a single version, of which a window is one stretch that needs no search and no copy."""
        one, count = int(slot[0]), len(slot)
        marks = self.windows.marks(slot, rows, np.ones(count, np.bool_) if is_number else None)
        start, stop = 0, self.every_rows - int(self.windows.rows[one])
        while stop <= count:
            self.windows.add(marks, slice(start, stop))
            yield one, stop - 1
            start, stop = stop, stop + self.every_rows
        if start < count:
            self.windows.add(marks, slice(start, count))

    def places(self, slot: Ints, rows: JoinedRows, regression: Callable[[int], bool]) -> None:
        """Find where rows count, as `add` does before it counts any; raises what `add` would raise."""
        numbers = {one: regression(one) for one in set(slot.tolist())}
        self.windows.marks(slot, rows, np.array([numbers[one] for one in slot.tolist()]) if any(numbers.values()) else None)

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
        self.windows.forget(slot)


def _ranks(slot: Ints) -> Ints:
    """Return how many earlier rows have the same slot."""
    by_slot = np.argsort(slot, kind="stable")
    ordered = slot[by_slot]
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(ordered[1:] != ordered[:-1]) + 1))
    ranks = np.empty(len(slot), np.int64)
    ranks[by_slot] = np.arange(len(slot)) - np.repeat(starts, np.diff(np.append(starts, len(slot))))
    return ranks


def take_joined(rows: JoinedRows, at: Ints | slice) -> JoinedRows:
    """Return the rows at these indices."""
    first = (rows.order[at], rows.model[at], rows.version[at], rows.prediction_offset[at], rows.label_offset[at])
    fitness = None if rows.fitness is None else rows.fitness[at]
    return JoinedRows(*first, rows.ts[at], rows.output[at], rows.label[at], rows.error[at], rows.scores[at], fitness)
