"""Disputes: the ids of a piece whose story is not plain, followed record by record in merged order.

The rules, all on records and none on batches: a prediction is remembered for the join window and while at most `max_rows` are newer; its
first label counts, another one is a duplicate or a correction, a null one a retraction. A label without a prediction waits; a null
label takes a waiting one back. A prediction is a duplicate if one of its model, version and id is remembered; a label has no version,
and joins those of every version that answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .admission import label_problem
from .answered import Answered
from .bisection import Blame
from .columns import Ints
from .early_labels import MAX_LABEL_BYTES, EarlyLabel, EarlyLabels
from .faults import contained
from .inspection import Inspector
from .model_table import ModelTable
from .outputs import mark_of
from .pending import WAITING, Pending
from .pieces import Labels, Piece, Predictions

UNJOINABLE = "label must follow a prediction of the same id within the join window"


@dataclass(frozen=True, slots=True)
class Rules:
    """How long and how many predictions are remembered."""

    window_ms: int
    max_rows: int


class Pair(NamedTuple):
    """A prediction's row and its label."""

    row: int
    order: int
    label_offset: int
    value: Any


@dataclass(slots=True)
class Held:
    """The newest prediction of an id; `older` is that of another version before it."""

    row: int
    time_ms: int
    slot: int
    version: int
    mark: int
    older: Held | None = None


class Disputes:
    """The odd ids of one piece; once they are settled, `admitted` and `superseded` tell what became of its predictions.

    `backs`: how far behind a prediction's row lies the row of another version, which is then `hidden`.
    """

    predictions: Predictions
    labels: Labels
    piece: Piece
    blame: Blame

    def __init__(self, rules: Rules, pending: Pending, early: EarlyLabels, inspector: Inspector) -> None:
        self.answered = Answered(rules.window_ms)
        self.rules = rules
        self.pending = pending
        self.early = early
        self.inspector = inspector
        self.table: ModelTable = inspector.table
        self.admitted: list[int] = []
        self.superseded: list[int] = []
        self.backs: dict[int, int] = {}
        self.hidden: list[int] = []
        self.clock: tuple[Ints, int] = (np.zeros(0, np.int64), 0)

    def look_at(self, predictions: Piece, labels: Piece) -> None:
        """Take the pieces that the rows come from."""
        self.piece, self.blame = labels, Blame(self.inspector, [predictions, labels])

    def begin(self, predictions: Predictions, labels: Labels, existing: tuple[Ints, Ints], plain: NDArray[np.bool_]) -> None:
        """Take a piece; `plain` says which predictions are new for certain, `existing` the rows held by ids."""
        self.predictions, self.labels = predictions, labels
        self.existing = existing
        self.plain_before = np.concatenate([[0], np.cumsum(plain)])
        self.clear()
        self._ids: dict[bytes, Held | None] = {}
        self._pairs: list[Pair] = []

    def clear(self) -> None:
        """Forget what became of the predictions of the piece before."""
        self.admitted, self.superseded, self.backs, self.hidden = [], [], {}, []

    def settle(self, predictions: Ints, labels: Ints) -> list[Pair]:
        """Follow the given predictions and labels of the piece in merged order; return the pairs they make.

        A record that this fails on becomes a dead letter, as a fault of ours.
        """
        orders = np.concatenate([self.predictions.order[predictions], self.labels.order[labels]])
        for at in np.argsort(orders, kind="stable").tolist():
            try:
                if at < len(predictions):
                    self._prediction(int(predictions[at]))
                else:
                    self._label(int(labels[at - len(predictions)]))
            except BaseException as problem:  # noqa: BLE001 - one record must not hurt another
                self.blame.put(int(orders[at]), contained(problem))
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
        family = self._family(held, time_ms, count)
        version = int(rows.version[at])
        if family and any(one.version == version for one in family):
            self.table.count(order, slot, "duplicates")
            return
        if held is not None and not family:
            self.superseded.append(held.row)
        self.admitted.append(at)
        made = self._ids[ident] = Held(count, time_ms, slot, version, WAITING)
        if held is not None and family:
            made.older = held
            self.backs[at] = count - held.row
            self.hidden.append(held.row)
        self._answer(made, ident, order)

    def _answer(self, made: Held, ident: bytes, order: int) -> None:
        """Join a new prediction with the label that came before it, for it or for another version."""
        early, answered = self.early.find(ident), self.answered.find(ident, made.time_ms)
        if early is not None:
            self.early.remove(ident)
            try:
                mark_of(early.value)
                problem = label_problem(early.value, self.table.models[made.slot])
            except BaseException as fault:  # noqa: BLE001 - it is the label's, not that of the prediction
                self._refuse(early, order, "processing_error", contained(fault))
                return
            if problem is not None:
                self._refuse(early, order, "invalid", problem)
                return
            answered = self.answered.add(ident, early.value, early.letter.offset, early.time_ms)
        elif answered is None or made.older is None:
            if made.older is not None and made.older.mark != WAITING:
                self.table.count(order, made.slot, "answers_after_label")
            return
        made.mark = mark_of(answered.value)
        self._pairs.append(Pair(made.row, order, answered.offset, answered.value))

    def _label(self, at: int) -> None:
        labels = self.labels
        order, time_ms, value = int(labels.order[at]), int(labels.time_ms[at]), labels.values[at]
        self.expire(time_ms)
        ident = labels.ids[at].tobytes()
        held = self._held(ident, int(self.existing[1][at]))
        before = int(np.searchsorted(self.predictions.order, order))
        count = self.pending.head + int(self.plain_before[before]) + len(self.admitted)
        family = self._family(held, time_ms, count)
        if not family:
            self._unmatched(at, ident)
            return
        slot = family[0].slot
        if value is None:
            self.table.count(order, slot, "retractions")
            return
        waiting = [one for one in family if one.mark == WAITING]
        problem = label_problem(value, self.table.models[slot]) if waiting else None
        if problem is not None:
            self.inspector.refuse(self.piece, int(labels.at[at]), "invalid", problem)
            return
        mark = mark_of(value)
        if len(waiting) < len(family):
            same = all(one.mark in (WAITING, mark) for one in family)
            self.table.count(order, slot, "duplicate_labels" if same else "corrections")
        for one in reversed(waiting):
            one.mark = mark
            self._pairs.append(Pair(one.row, order, int(labels.offset[at]), value))

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
            # Oldest first, so that each knows the one before it.
            for one in reversed(self.pending.family(row)) if row >= 0 else ():
                at = np.array([one])
                time_ms, slot, version = (int(self.pending.column(name, at)[0]) for name in ("time_ms", "model", "version"))
                held = Held(one, time_ms, slot, version, int(self.pending.marks(at)[0]), held)
            self._ids[ident] = held
        return self._ids[ident]

    def _family(self, held: Held | None, time_ms: int, count: int) -> list[Held]:
        """Return the predictions of an id that are remembered still, newest first."""
        found = []
        while held is not None and self._alive(held, time_ms, count):
            found.append(held)
            held = held.older
        return found

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
