"""Disputes: the ids of a piece whose story is not plain, followed record by record in merged order.

The rules, all on records and none on batches: a prediction is remembered for the join window and while at most `max_rows` are newer; its
first label counts, another one is a duplicate or a correction, a null one a retraction. A label without a prediction waits; a null
label takes a waiting one back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .admission import label_problem
from .columns import Ints
from .early_labels import MAX_LABEL_BYTES, EarlyLabel, EarlyLabels
from .inspection import Inspector
from .model_table import ModelTable
from .outputs import mark_of
from .pending import WAITING, Pending
from .pieces import Labels, Piece, Predictions

UNJOINABLE = "label must follow a prediction of the same id within the join window"


@dataclass(frozen=True, slots=True)
class Rules:
    """Hold how long and how many predictions are remembered."""

    window_ms: int
    max_rows: int


class Pair(NamedTuple):
    """Be a prediction's row and its label."""

    row: int
    order: int
    label_offset: int
    value: Any


@dataclass(slots=True)
class Held:
    """Be the newest prediction of an id."""

    row: int
    time_ms: int
    slot: int
    mark: int


class Disputes:
    """Settle the odd ids of one piece; afterwards `admitted` and `superseded` tell what became of its predictions."""

    predictions: Predictions
    labels: Labels
    piece: Piece

    def __init__(self, rules: Rules, pending: Pending, early: EarlyLabels, inspector: Inspector) -> None:
        self.rules = rules
        self.pending = pending
        self.early = early
        self.inspector = inspector
        self.table: ModelTable = inspector.table
        self.admitted: list[int] = []
        self.superseded: list[int] = []
        self.clock: tuple[Ints, int] = (np.zeros(0, np.int64), 0)

    def begin(self, predictions: Predictions, labels: Labels, existing: tuple[Ints, Ints], plain: NDArray[np.bool_]) -> None:
        """Take a piece; `plain` says which predictions are new for certain, `existing` the rows held by ids."""
        self.predictions, self.labels = predictions, labels
        self.existing = existing
        self.plain_before = np.concatenate([[0], np.cumsum(plain)])
        self.admitted, self.superseded = [], []
        self._ids: dict[bytes, Held | None] = {}
        self._pairs: list[Pair] = []

    def settle(self, predictions: Ints, labels: Ints) -> list[Pair]:
        """Follow the given predictions and labels of the piece in merged order; return the pairs they make."""
        orders = np.concatenate([self.predictions.order[predictions], self.labels.order[labels]])
        for at in np.argsort(orders, kind="stable").tolist():
            if at < len(predictions):
                self._prediction(int(predictions[at]))
            else:
                self._label(int(labels[at - len(predictions)]))
        return self._pairs

    def expire(self, now_ms: int) -> None:
        """Refuse the early labels that are too old at `now_ms`, each as of the first record that comes too late for it."""
        times, first_order = self.clock
        for label in self.early.expire(now_ms):
            order = first_order + int(np.searchsorted(times, label.time_ms + self.early.limit_ms, side="right"))
            self._give_up(label, order)

    def _prediction(self, at: int) -> None:
        rows = self.predictions
        order, time_ms, slot = int(rows.order[at]), int(rows.time_ms[at]), int(rows.slot[at])
        self.expire(time_ms)
        ident = rows.ids[at].tobytes()
        held = self._held(ident, int(self.existing[0][at]))
        count = self.pending.head + int(self.plain_before[at]) + len(self.admitted)
        if held is not None:
            if self._alive(held, time_ms, count):
                self.table.count(order, slot, "duplicates")
                return
            self.superseded.append(held.row)
        self.admitted.append(at)
        made = self._ids[ident] = Held(count, time_ms, slot, WAITING)
        early = self.early.find(ident)
        if early is not None:
            self.early.remove(ident)
            problem = label_problem(early.value, self.table.models[slot])
            if problem is not None:
                self._refuse(early, order, "invalid", problem)
                return
            made.mark = mark_of(early.value)
            self._pairs.append(Pair(count, order, early.letter.offset, early.value))

    def _label(self, at: int) -> None:
        labels = self.labels
        order, time_ms, value = int(labels.order[at]), int(labels.time_ms[at]), labels.values[at]
        self.expire(time_ms)
        ident = labels.ids[at].tobytes()
        held = self._held(ident, int(self.existing[1][at]))
        before = int(np.searchsorted(self.predictions.order, order))
        count = self.pending.head + int(self.plain_before[before]) + len(self.admitted)
        if held is None or not self._alive(held, time_ms, count):
            self._unmatched(at, ident)
        elif value is None:
            self.table.count(order, held.slot, "retractions")
        elif held.mark != WAITING:
            self.table.count(order, held.slot, "duplicate_labels" if held.mark == mark_of(value) else "corrections")
        else:
            problem = label_problem(value, self.table.models[held.slot])
            if problem is not None:
                self.inspector.refuse(self.piece, int(labels.at[at]), "invalid", problem)
                return
            held.mark = mark_of(value)
            self._pairs.append(Pair(held.row, order, int(labels.offset[at]), value))

    def _unmatched(self, at: int, ident: bytes) -> None:
        labels = self.labels
        order, slot, value = int(labels.order[at]), int(labels.slot[at]), labels.values[at]
        early = self.early.find(ident)
        if value is None:
            if early is not None:
                self.early.remove(ident)
            self._count(order, slot, "retractions")
        elif early is not None:
            self._count(order, slot, "duplicate_labels" if mark_of(early.value) == mark_of(value) else "corrections")
        else:
            self._count(order, slot, "early_labels")
            letter = self.inspector.letter(self.piece, int(labels.at[at]), "unjoinable", UNJOINABLE)
            key = letter.key
            model = key.decode() if key is not None else ""
            label = EarlyLabel(ident, model, value, order, int(labels.time_ms[at]), letter)
            if label.size_bytes > MAX_LABEL_BYTES:
                size = f"it must be at most {MAX_LABEL_BYTES} bytes with its headers to be held, got {label.size_bytes}"
                self._refuse(label, order, "too_large", f"{UNJOINABLE}, or wait for it; {size}")
                return
            for evicted in self.early.add(label):
                self.inspector.limits.note(order, self._full_of(), "the oldest labels without a prediction give way to new ones")
                self._give_up(evicted, order)

    def _full_of(self) -> str:
        return "max_early_labels" if len(self.early) >= self.early.limit else "max_early_bytes"

    def _held(self, ident: bytes, row: int) -> Held | None:
        if ident not in self._ids:
            held = None
            if row >= 0:
                at = np.array([row])
                time_ms, slot = int(self.pending.column("time_ms", at)[0]), int(self.pending.column("model", at)[0])
                held = Held(row, time_ms, slot, int(self.pending.marks(at)[0]))
            self._ids[ident] = held
        return self._ids[ident]

    def _alive(self, held: Held, time_ms: int, count: int) -> bool:
        young = time_ms - held.time_ms <= self.rules.window_ms and held.row >= count - self.rules.max_rows
        return young and held.row >= self.table.models[held.slot].first_row

    def _count(self, order: int, slot: int, name: str) -> None:
        if slot >= 0 and self.table.models[slot].born < order:
            self.table.count(order, slot, name)

    def _give_up(self, label: EarlyLabel, order: int) -> None:
        self._count(order, self.table.slots.get(label.model, -1), "late_labels")
        self._refuse(label, order, label.letter.disposition, label.letter.message)

    def _refuse(self, label: EarlyLabel, order: int, disposition: str, message: str) -> None:
        letter = label.letter
        if disposition != letter.disposition:
            letter = msgspec.structs.replace(letter, disposition=disposition, message=message)
        self.inspector.refusals.append((order, label.order, letter))
