"""Sums behind the metrics of all model versions of a partition, in arrays; whole numbers wherever order must not matter.

A version has a window (rows since the last report) and a total (before it). Per class it counts hits, predictions and labels, and
for the first 64 classes histograms of the scores of rows of the class and of all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Floats, Ints, JoinedRows
from .roc import BINS, score_bins

SCORED_CLASSES = 64
LOSS_UNIT = float(2**24)
FLOOR = 1e-15
COUNTERS = 3


class Window:
    """Hold one version's sums over a stretch of rows; sums of classes are (3, classes), histograms (classes, 2, bins)."""

    def __init__(self, classes: int, scored: int) -> None:
        self.rows = 0
        self.losses = 0
        self.loss_sum = 0
        self.absolute = 0.0
        self.square = 0.0
        self.classes: Ints = np.zeros((COUNTERS, classes), np.int64)
        self.histograms: Ints = np.zeros((scored, 2, BINS), np.int64)

    def add(self, other: Window) -> None:
        """Add the sums of rows that come after these."""
        self.rows += other.rows
        self.losses += other.losses
        self.loss_sum += other.loss_sum
        self.absolute += other.absolute
        self.square += other.square
        self.classes = _widen(self.classes, other.classes.shape[1], 1)
        self.classes[:, : other.classes.shape[1]] += other.classes
        self.histograms = _widen(self.histograms, len(other.histograms), 0)
        self.histograms[: len(other.histograms)] += other.histograms


def _widen(array: Ints, size: int, axis: int) -> Ints:
    if array.shape[axis] >= size:
        return array
    pad = [(0, size - array.shape[axis]) if at == axis else (0, 0) for at in range(array.ndim)]
    return np.pad(array, pad)


class WindowSums:
    """Hold the windows of all versions, by version slot, in flat arrays."""

    def __init__(self) -> None:
        self.rows: Ints = np.zeros(0, np.int64)
        self.losses: Ints = np.zeros(0, np.int64)
        self.loss_sum: Ints = np.zeros(0, np.int64)
        self.absolute: Floats = np.zeros(0)
        self.square: Floats = np.zeros(0)
        self.classes: Ints = np.zeros(0, np.int64)
        self.scored: Ints = np.zeros(0, np.int64)
        self.class_base: Ints = np.zeros(0, np.int64)
        self.score_base: Ints = np.zeros(0, np.int64)
        self._class_arena: Ints = np.zeros(0, np.int64)
        self._score_arena: NDArray[np.int32] = np.zeros(0, np.int32)
        self._class_used = 0
        self._score_used = 0

    def reserve(self, slots: int) -> None:
        """Make room for version slots below `slots`."""
        if slots <= len(self.rows):
            return
        size = max(8, 2 * slots)
        for name in ("rows", "losses", "loss_sum", "absolute", "square", "classes", "scored", "class_base", "score_base"):
            old = getattr(self, name)
            new = np.zeros(size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def add_classes(self, slot: Ints, rows: JoinedRows) -> None:
        """Add rows of classification; `slot` is the version slot of each."""
        if not len(slot):
            return
        output, label = rows.output.astype(np.int64), rows.label.astype(np.int64)
        present = ~np.isnan(rows.scores)
        given = present.sum(axis=1)
        self._fit(slot, np.maximum(output, label) + 1, np.minimum(given, SCORED_CLASSES))
        np.add.at(self.rows, slot, 1)
        base, width = self.class_base[slot], self.classes[slot]
        arena = self._class_arena
        hit = output == label
        np.add.at(arena, (base + label)[hit], 1)
        np.add.at(arena, base + width + output, 1)
        np.add.at(arena, base + 2 * width + label, 1)
        self._add_scores(slot, rows.scores, label, given)

    def _add_scores(self, slot: Ints, scores: Floats, label: Ints, given: Ints) -> None:
        some = np.flatnonzero(given > 0)
        if not len(some):
            return
        slot, scores, label, given = slot[some], scores[some], label[some], given[some]
        inside = label < given
        chance = np.where(inside, scores[np.arange(len(some)), np.where(inside, label, 0)], 0.0)
        loss = -np.log(np.minimum(np.maximum(chance, FLOOR), 1.0))
        np.add.at(self.loss_sum, slot, np.rint(loss * LOSS_UNIT).astype(np.int64))
        np.add.at(self.losses, slot, 1)
        # The scores of two classes say the same twice.
        skip = int((given == 2).all())
        widest = min(int(given.max()), SCORED_CLASSES)
        bins = score_bins(scores[:, skip:widest])
        number = np.arange(skip, widest)
        mine = (label[:, None] == number).astype(np.int64)
        at = self.score_base[slot][:, None] + (number * 2 + mine) * BINS + bins
        if (given >= widest).all():
            np.add.at(self._score_arena, at.reshape(-1), 1)
        else:
            kept = (number < given[:, None]) & ~((given[:, None] == 2) & (number == 0))
            np.add.at(self._score_arena, at[kept], 1)

    def add_numbers(self, slot: Ints, error: Floats) -> None:
        """Add absolute errors of regression, one row after the other."""
        np.add.at(self.rows, slot, 1)
        np.add.at(self.absolute, slot, error)
        np.add.at(self.square, slot, error * error)

    def _fit(self, slot: Ints, classes: Ints, scored: Ints) -> None:
        small = (classes > self.classes[slot]) | (scored > self.scored[slot])
        for one in np.unique(slot[small]).tolist():
            mine = slot == one
            self.place(one, self._take(one, max(2, int(classes[mine].max())), int(scored[mine].max())))

    def _take(self, slot: int, classes: int, scored: int) -> Window:
        window = self.window(slot)
        window.classes = _widen(window.classes, 1 << (classes - 1).bit_length(), 1)
        window.histograms = _widen(window.histograms, scored, 0)
        return window

    def window(self, slot: int) -> Window:
        """Return a copy of a version's window."""
        self.reserve(slot + 1)
        classes, scored = int(self.classes[slot]), int(self.scored[slot])
        base, score_base = int(self.class_base[slot]), int(self.score_base[slot])
        window = Window(classes, scored)
        window.rows, window.losses = int(self.rows[slot]), int(self.losses[slot])
        window.loss_sum = int(self.loss_sum[slot])
        window.absolute, window.square = float(self.absolute[slot]), float(self.square[slot])
        window.classes[:] = self._class_arena[base : base + COUNTERS * classes].reshape(COUNTERS, classes)
        flat = self._score_arena[score_base : score_base + scored * 2 * BINS]
        window.histograms[:] = flat.reshape(scored, 2, BINS)
        return window

    def place(self, slot: int, window: Window) -> None:
        """Set a version's window."""
        self.reserve(slot + 1)
        self.rows[slot], self.losses[slot], self.loss_sum[slot] = window.rows, window.losses, window.loss_sum
        self.absolute[slot], self.square[slot] = window.absolute, window.square
        classes, scored = window.classes.shape[1], len(window.histograms)
        if classes > self.classes[slot]:
            self._class_arena, self._class_used, base = _room(self._class_arena, self._class_used, COUNTERS * classes)
            self.class_base[slot], self.classes[slot] = base, classes
        if scored > self.scored[slot]:
            self._score_arena, self._score_used, base = _room(self._score_arena, self._score_used, scored * 2 * BINS)
            self.score_base[slot], self.scored[slot] = base, scored
        classes, scored = int(self.classes[slot]), int(self.scored[slot])
        base = int(self.class_base[slot])
        self._class_arena[base : base + COUNTERS * classes] = _widen(window.classes, classes, 1).reshape(-1)
        base = int(self.score_base[slot])
        self._score_arena[base : base + scored * 2 * BINS] = _widen(window.histograms, scored, 0).reshape(-1)

    def clear(self, slot: int) -> None:
        """Begin a new window."""
        self.place(slot, Window(0, 0))


def _room(arena: NDArray[Any], used: int, size: int) -> tuple[NDArray[Any], int, int]:
    if used + size > len(arena):
        grown = np.zeros(max(1024, 2 * (used + size)), arena.dtype)
        grown[: len(arena)] = arena
        arena = grown
    return arena, used + size, used
