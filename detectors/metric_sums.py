"""Sums behind the metrics of all model versions of a partition, in arrays; whole numbers wherever order must not matter.

A version has a window (rows since the last report) and a total (before it). Per class it counts hits, predictions and labels, and
for the first 64 classes histograms of the scores of rows of the class and of all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import CONTRARY, UNFIT, Floats, Ints, JoinedRows
from .roc import BINS, score_bins

SCORED_CLASSES = 64
LOSS_UNIT = float(2**24)
FLOOR = 1e-15
COUNTERS = 3
MOST_CLASSES = 16_384
"""No model has an index beyond: classes of a signature, and labels that it has not (model.py)."""
SUMS = ("rows", "losses", "loss_sum", "unfit", "contrary", "absolute", "square")


class Window:
    """One version's sums over a stretch of rows; sums of classes are (3, classes), histograms (classes, 2, bins).

    `unfit` rows have scores that are no chances of the classes and were left out; `contrary` ones have the highest at another class.
    """

    def __init__(self, classes: int, scored: int) -> None:
        self.rows = 0
        self.losses = 0
        self.loss_sum = 0
        self.unfit = 0
        self.contrary = 0
        self.absolute = 0.0
        self.square = 0.0
        self.classes: Ints = np.zeros((COUNTERS, classes), np.int64)
        self.histograms: Ints = np.zeros((scored, 2, BINS), np.int64)

    def add(self, other: Window) -> None:
        """Add the sums of rows that come after these."""
        self.rows += other.rows
        self.losses += other.losses
        self.loss_sum += other.loss_sum
        self.unfit += other.unfit
        self.contrary += other.contrary
        self.absolute += other.absolute
        self.square += other.square
        self.classes = _widen(self.classes, other.classes.shape[1], 1)
        self.classes[:, : other.classes.shape[1]] += other.classes
        self.histograms = _widen(self.histograms, len(other.histograms), 0)
        self.histograms[: len(other.histograms)] += other.histograms


def _widen(array: Ints, size: int, axis: int) -> Ints:
    if array.shape[axis] >= size:
        return array
    wide = np.zeros([size if at == axis else length for at, length in enumerate(array.shape)], array.dtype)
    wide[tuple(slice(length) for length in array.shape)] = array
    return wide


@dataclass(slots=True)
class Marks:
    """Where n joined rows count: `slot`, `error`, `fitness` (and `is_number` where some rows are regression) of all of them.

    The rest is of the k classified rows at `kept`: indices of counters, whether a prediction was right, its loss in LOSS_UNIT, and
    indices of bins (k, classes), those that count. `loss`, `scores` and `is_score` are None where no row has scores.
    """

    slot: Ints
    is_number: NDArray[np.bool_] | None
    error: Floats
    kept: Ints
    fitness: NDArray[np.int8] | None = None
    predicted: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    labelled: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    is_hit: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    has_scores: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    loss: Ints | None = None
    scores: Ints | None = None
    is_score: NDArray[np.bool_] | None = None


class WindowSums:
    """The windows of all versions, by version slot, in flat arrays."""

    def __init__(self) -> None:
        self.rows: Ints = np.zeros(0, np.int64)
        self.losses: Ints = np.zeros(0, np.int64)
        self.loss_sum: Ints = np.zeros(0, np.int64)
        self.unfit: Ints = np.zeros(0, np.int64)
        self.contrary: Ints = np.zeros(0, np.int64)
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
        self._freed: dict[tuple[str, int], list[int]] = {}

    def reserve(self, slots: int) -> None:
        """Make room for version slots below `slots`."""
        if slots <= len(self.rows):
            return
        size = max(8, 2 * slots)
        for name in (*SUMS, "classes", "scored", "class_base", "score_base"):
            old = getattr(self, name)
            new = np.zeros(size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def marks(self, slot: Ints, rows: JoinedRows, is_number: NDArray[np.bool_] | None) -> Marks:
        """Return where rows count, making room for it; `slot` is the version slot of each, `is_number` None without regression."""
        self.reserve(int(slot.max()) + 1)
        kept = np.arange(len(slot)) if is_number is None else np.flatnonzero(~is_number)
        mine, scores = slot[kept], rows.scores[kept]
        output, label = _indices(rows.output[kept]), _indices(rows.label[kept])
        gone = np.isnan(scores)
        width = scores.shape[1]
        given = width - gone.sum(axis=1) if gone.any() else np.full(len(kept), width, np.int64)
        if len(kept):
            self._fit(mine, np.maximum(output, label) + 1, np.minimum(given, SCORED_CLASSES))
        base, classes = self.class_base[mine], self.classes[mine]
        made = Marks(slot, is_number, rows.error, kept, rows.fitness)
        # By value: an output and a label that both have no index of their own may differ.
        made.predicted, made.labelled, made.is_hit = base + classes + output, base + 2 * classes + label, rows.error[kept] == 0
        made.has_scores = given > 0
        if width and made.has_scores.any():
            made.loss = _losses(scores, label, given)
            made.scores, made.is_score = self._score_marks((mine, scores, label, given))
        return made

    def _score_marks(self, rows: tuple[Ints, Floats, Ints, Ints]) -> tuple[Ints, NDArray[np.bool_]]:
        slot, scores, label, given = rows
        # The scores of two classes say the same twice.
        skip = int(((given == 2) | (given == 0)).all())
        widest = min(int(given.max()), SCORED_CLASSES)
        bins = score_bins(scores[:, skip:widest])
        number = np.arange(skip, widest)
        mine = (label[:, None] == number).astype(np.int64)
        at = (self.score_base[slot][:, None] + (number * 2 + mine) * BINS) + bins
        return at, (number < given[:, None]) & ~((given[:, None] == 2) & (number == 0))

    def add(self, marks: Marks, chosen: slice | NDArray[np.bool_]) -> None:
        """Count the chosen rows."""
        slot = marks.slot[chosen]
        _count(self.rows, slot)
        if marks.fitness is not None:
            fitness = marks.fitness[chosen]
            _count(self.unfit, slot[fitness == UNFIT])
            _count(self.contrary, slot[fitness == CONTRARY])
        kept: slice | NDArray[np.bool_] = chosen
        if marks.is_number is not None:
            which = np.zeros(len(marks.slot), np.bool_)
            which[chosen] = True
            numbers = np.flatnonzero(marks.is_number & which)
            np.add.at(self.absolute, marks.slot[numbers], marks.error[numbers])
            np.add.at(self.square, marks.slot[numbers], marks.error[numbers] ** 2)
            kept = which[marks.kept]
            slot = marks.slot[marks.kept][kept]
        predicted, labelled, is_hit = marks.predicted[kept], marks.labelled[kept], marks.is_hit[kept]
        hits = predicted[is_hit] - self.classes[slot[is_hit]]
        _count(self._class_arena, np.concatenate((hits, predicted, labelled)))
        if marks.loss is None or marks.scores is None or marks.is_score is None:
            return
        has_scores, is_score = marks.has_scores[kept], marks.is_score[kept]
        scored, loss = slot, marks.loss[kept]
        if not has_scores.all():
            scored, loss = slot[has_scores], loss[has_scores]
        _count(self.losses, scored)
        np.add.at(self.loss_sum, scored, loss)
        scores = marks.scores[kept]
        _count(self._score_arena, scores.reshape(-1) if is_score.all() else scores[is_score])

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
        window.loss_sum, window.unfit = int(self.loss_sum[slot]), int(self.unfit[slot])
        window.contrary = int(self.contrary[slot])
        window.absolute, window.square = float(self.absolute[slot]), float(self.square[slot])
        window.classes[:] = self._class_arena[base : base + COUNTERS * classes].reshape(COUNTERS, classes)
        flat = self._score_arena[score_base : score_base + scored * 2 * BINS]
        window.histograms[:] = flat.reshape(scored, 2, BINS)
        return window

    def place(self, slot: int, window: Window) -> None:
        """Set a version's window."""
        self.reserve(slot + 1)
        self.rows[slot], self.losses[slot], self.loss_sum[slot] = window.rows, window.losses, window.loss_sum
        self.unfit[slot], self.contrary[slot] = window.unfit, window.contrary
        self.absolute[slot], self.square[slot] = window.absolute, window.square
        classes, scored = window.classes.shape[1], len(window.histograms)
        if classes > self.classes[slot]:
            self._free(slot, "classes")
            base = self._reused("classes", classes)
            if base is None:
                self._class_arena, self._class_used, base = _room(self._class_arena, self._class_used, COUNTERS * classes)
            self.class_base[slot], self.classes[slot] = base, classes
        if scored > self.scored[slot]:
            self._free(slot, "scored")
            base = self._reused("scored", scored)
            if base is None:
                self._score_arena, self._score_used, base = _room(self._score_arena, self._score_used, scored * 2 * BINS)
            self.score_base[slot], self.scored[slot] = base, scored
        classes, scored = int(self.classes[slot]), int(self.scored[slot])
        base = int(self.class_base[slot])
        self._class_arena[base : base + COUNTERS * classes] = _widen(window.classes, classes, 1).reshape(-1)
        base = int(self.score_base[slot])
        self._score_arena[base : base + scored * 2 * BINS] = _widen(window.histograms, scored, 0).reshape(-1)

    def _free(self, slot: int, what: str) -> None:
        """Leave the stretch of an arena that a slot has to the next one of its size, which fills all of it."""
        size = int(getattr(self, what)[slot])
        if size:
            base = int((self.class_base if what == "classes" else self.score_base)[slot])
            self._freed.setdefault((what, size), []).append(base)

    def _reused(self, what: str, size: int) -> int | None:
        freed = self._freed.get((what, size))
        return freed.pop() if freed else None

    def forget(self, slot: int) -> None:
        """Drop a version, and what room it had."""
        self.clear(slot)
        for what in ("classes", "scored"):
            self._free(slot, what)
            getattr(self, what)[slot] = 0

    def clear(self, slot: int) -> None:
        """Begin a new window."""
        self.reserve(slot + 1)
        for name in SUMS:
            getattr(self, name)[slot] = 0
        base, score_base = int(self.class_base[slot]), int(self.score_base[slot])
        self._class_arena[base : base + COUNTERS * int(self.classes[slot])] = 0
        self._score_arena[score_base : score_base + int(self.scored[slot]) * 2 * BINS] = 0


def _indices(values: Floats) -> Ints:
    """Return class indices as whole numbers; raises IndexError where one is none, which would count for a neighbour."""
    if len(values) and not 0 <= values.min() <= values.max() < MOST_CLASSES:
        raise IndexError(f"class indices must be 0 to {MOST_CLASSES - 1}, got {values.min()} to {values.max()}")
    found: Ints = values.astype(np.int64)
    if (found != values).any():
        raise IndexError(f"class indices must be whole numbers, got {values[found != values][0]}")
    return found


def _losses(scores: Floats, label: Ints, given: Ints) -> Ints:
    inside = label < given
    chance = np.where(inside, scores[np.arange(len(label)), np.where(inside, label, 0)], 0.0)
    loss = -np.log(np.minimum(np.maximum(chance, FLOOR), 1.0))
    found: Ints = np.rint(loss * LOSS_UNIT).astype(np.int64)
    return found


def _count(counters: NDArray[Any], at: Ints) -> None:
    """Add 1 at every index."""
    if not len(at):
        return
    low, high = int(at.min()), int(at.max()) + 1
    if low < 0 or high > len(counters):
        raise IndexError(f"counters must be 0 to {len(counters) - 1}, got {low} to {high - 1}")
    if high - low <= 4 * len(at):
        counters[low:high] += np.bincount(at - low).astype(counters.dtype)
    else:
        np.add.at(counters, at, 1)


def _room(arena: NDArray[Any], used: int, size: int) -> tuple[NDArray[Any], int, int]:
    if used + size > len(arena):
        grown = np.zeros(max(1024, 2 * (used + size)), arena.dtype)
        grown[: len(arena)] = arena
        arena = grown
    return arena, used + size, used
