"""Join: predictions and labels of one piece of the log, matched by id, as if record after record.

Ids with one plain story (a new prediction, a label for a waiting one) are joined by column. Every other id of the piece (seen twice,
labelled before its prediction, taken back, at the edge of the window) goes through `disputes`, one record at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bisection import Blame, in_halves
from .checked_columns import strange_pairs
from .columns import CONTRARY, FIT, UNFIT, Floats, Ints, JoinedRows, joined_rows
from .disputes import Disputes, Pair, Rules
from .early_labels import EarlyLabels
from .faults import Fault
from .model_table import ModelTable
from .outputs import Fresh, is_output, label_indices, mark_of, marks_of, output_indices, place_classes
from .pending import SUPERSEDED, Marks, NewRows, Pending
from .pieces import Labels, Predictions, joined_labels, no_labels
from .scalars import numbers_of, types_of
from .scores import chances

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Joined:
    """Pairs in merged order: the row of the prediction, the order and offset of the later record and of the label, the label."""

    rows: Ints
    order: Ints
    label_offset: Ints
    values: list[Any]
    numbers: Floats | None
    marks: Marks

    def take(self, kept: slice | Ints) -> Joined:
        """Return some of the pairs, in order."""
        values = self.values[kept] if isinstance(kept, slice) else [self.values[at] for at in kept.tolist()]
        numbers = None if self.numbers is None else self.numbers[kept]
        return Joined(self.rows[kept], self.order[kept], self.label_offset[kept], values, numbers, self.marks[kept])


class Joiner:
    """The join of predictions and labels: both are kept until they can be matched or are too old."""

    def __init__(self, rules: Rules, table: ModelTable, pending: Pending, early: EarlyLabels) -> None:
        self.rules = rules
        self.table = table
        self.pending = pending
        self.early = early
        self.faults: list[Fault] = []

    def join(self, inputs: tuple[Predictions, Floats], labels: Labels, disputes: Disputes) -> tuple[Bools, Joined]:
        """Return which predictions are new, and the pairs; new rows are held and pairs marked."""
        predictions, stored = inputs
        labels, strange, marks = self._judged(labels, disputes.blame)
        match, odd, odd_labels = _matched(predictions, labels)
        existing = self._existing(predictions, labels, match)
        self._disputed((predictions, labels, match), existing, (odd, odd_labels), strange)
        pairs: list[Pair] = []
        disputes.clear()
        if odd.any() or odd_labels.any():
            disputes.begin(predictions, labels, existing, ~odd)
            pairs = disputes.settle(odd.nonzero()[0], odd_labels.nonzero()[0])
        new = ~odd
        new[disputes.admitted] = True
        places = new.cumsum() - 1
        first = self.pending.head
        self._append(predictions, stored, (new, disputes.backs))
        plain = (~odd_labels).nonzero()[0]
        rows = existing[1][plain]
        here = rows < 0
        rows[here] = first + places[match[plain[here]]]
        values, numbers = labels.values, labels.numbers
        if len(plain) != len(labels):
            values = [values[at] for at in plain.tolist()]
            numbers = None if numbers is None else numbers[plain]
        joined = _merged(Joined(rows, labels.order[plain], labels.offset[plain], values, numbers, marks[plain]), pairs)
        if disputes.superseded:
            self.pending.mark(np.array(disputes.superseded), SUPERSEDED)
        if disputes.hidden:
            self.pending.hide(np.array(disputes.hidden))
        if len(joined.rows):
            self.pending.mark(joined.rows, joined.marks)
        added = np.arange(first, self.pending.head)
        if disputes.superseded or disputes.hidden:
            added = np.setdiff1d(added, np.array(disputes.superseded + disputes.hidden))
        self.pending.index(added)
        return new, joined

    def pairs(self, joined: Joined, fresh: Fresh, blame: Blame) -> JoinedRows:
        """Return the columns of pairs; new classes get their indices here. A record whose pair this fails on becomes a dead letter."""

        def columns(start: int, stop: int) -> JoinedRows:
            last = math.inf if stop == len(joined.rows) else int(joined.order[stop])
            known = Fresh([one for one in fresh.values if one[0] < last], [])
            return self._columns(joined.take(slice(start, stop)), known)

        parts = in_halves(columns, (0, len(joined.rows)), lambda at, fault: blame.put(int(joined.order[at]), fault))
        found = parts[0] if len(parts) == 1 else joined_rows(parts)
        if found.fitness is not None:
            for kind, name in ((UNFIT, "unfit_scores"), (CONTRARY, "contrary_scores")):
                mine = (found.fitness == kind).nonzero()[0]
                self.table.count_rows(found.order[mine], found.model[mine], name)
        return found

    def _columns(self, joined: Joined, fresh: Fresh) -> JoinedRows:
        rows, pending = joined.rows, self.pending
        slots = pending.column("model", rows).astype(np.int64)
        self.faults += place_classes(fresh, joined, slots, self.table)
        stored = pending.column("output", rows)
        output = output_indices(stored, slots, self.table)
        label = label_indices(joined.values, joined.numbers, slots, self.table)
        facts = self.table.facts()
        regress = facts.regress[slots]
        error = np.where(regress, np.abs(output - label), (output != label).astype(np.float64))
        for row in ((output == label) & (output == facts.others[slots]) & ~regress).nonzero()[0].tolist():
            model = self.table.models[int(slots[row])]
            error[row] = not is_output(float(stored[row]), joined.values[row], model)
        scores, fitness = chances(pending.scores(rows), output, facts.binary[slots])
        if fitness is not None:
            fitness[regress] = FIT
        return JoinedRows(
            order=joined.order,
            model=slots,
            version=pending.column("version", rows).astype(np.int64),
            prediction_offset=pending.column("offset", rows),
            label_offset=joined.label_offset,
            ts=pending.column("ts", rows),
            output=output,
            label=label,
            error=error,
            scores=scores,
            fitness=fitness,
        )

    def _judged(self, labels: Labels, blame: Blame) -> tuple[Labels, Bools, Marks]:
        """Return the labels that can be marked, which of them are none of their model's kind, and their marks."""

        def judge(start: int, stop: int) -> tuple[Labels, Bools, Marks]:
            part = labels.part(start, stop)
            return part, strange_pairs(part, self.table), marks_of(part.values, part.numbers)

        parts = in_halves(judge, (0, len(labels)), lambda at, fault: blame.put(int(labels.order[at]), fault))
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return no_labels(), np.zeros(0, np.bool_), np.zeros(0, np.uint8)
        return (
            joined_labels([part for part, _, _ in parts]),
            np.concatenate([strange for _, strange, _ in parts]),
            np.concatenate([marks for _, _, marks in parts]),
        )

    def _append(self, predictions: Predictions, stored: Floats, admitted: tuple[Bools, dict[int, int]]) -> None:
        new, backs = admitted
        whole = bool(new.all())
        back = np.zeros(len(predictions), np.uint32)
        back[list(backs)] = list(backs.values())
        columns: dict[str, NDArray[Any]] = {
            "order": predictions.order,
            "offset": predictions.offset,
            "ts": predictions.ts,
            "time_ms": predictions.time_ms,
            "model": predictions.slot,
            "version": predictions.version,
            "output": stored,
            "back": back,
        }
        ids, scores = predictions.ids, predictions.scores
        if not whole:
            columns = {name: column[new] for name, column in columns.items()}
            ids, scores = ids[new], scores[new]
        self.pending.append(NewRows(ids, columns, scores.astype(np.float32)))

    def _existing(self, predictions: Predictions, labels: Labels, match: Ints) -> tuple[Ints, Ints]:
        """Return the row held before this piece of each id of the predictions and of the labels, -1 without."""
        rows = self.pending.find(predictions.ids)
        here = match >= 0
        if not here.any():
            return rows, self.pending.find(labels.ids)
        label_rows = rows[match]
        # Where a label has the id of a prediction of this piece, all of it, the search would go the same way once more.
        rest = (~here | (predictions.ids[:, 1][match] != labels.ids[:, 1])).nonzero()[0]
        label_rows[rest] = self.pending.find(labels.ids[rest])
        return rows, label_rows

    def _disputed(
        self,
        rows: tuple[Predictions, Labels, Ints],
        existing: tuple[Ints, Ints],
        repeated: tuple[Bools, Bools],
        strange: Bools,
    ) -> None:
        """Add to the predictions and labels that occur twice all others without a plain story."""
        (predictions, labels, match), (odd, odd_labels) = rows, repeated
        odd |= existing[0] >= 0
        if len(self.early):
            odd |= self.early.among(predictions.ids)
        odd_labels |= ~(self._waiting(predictions, labels, existing[1]) | self._follows(predictions, labels, match))
        odd_labels |= strange
        here = match >= 0
        odd_labels[here] |= odd[match[here]]
        odd[match[here & odd_labels]] = True

    def _waiting(self, predictions: Predictions, labels: Labels, rows: Ints) -> Bools:
        """Return which labels certainly find their row waiting, however many rows of this piece come before them."""
        found = rows >= 0
        if not found.any():
            return found
        pending, rules = self.pending, self.rules
        most = pending.head + predictions.order.searchsorted(labels.order)
        found &= pending.marks(rows) == 0
        if pending.newest_sibling >= pending.tail:
            # Those of several versions are joined one by one.
            found &= pending.column("back", rows) == 0
        found &= (rows >= most - rules.max_rows) & (labels.time_ms - pending.column("time_ms", rows) <= rules.window_ms)
        found &= rows >= self.table.facts().first_rows[labels.slot]
        return found

    def _follows(self, predictions: Predictions, labels: Labels, match: Ints) -> Bools:
        """Return which labels certainly find their prediction in this piece."""
        found = match >= 0
        if not found.any():
            return found
        rules = self.rules
        most = predictions.order.searchsorted(labels.order)
        found &= (predictions.order[match] < labels.order) & (match >= most - rules.max_rows)
        found &= labels.time_ms - predictions.time_ms[match] <= rules.window_ms
        return found


def _matched(predictions: Predictions, labels: Labels) -> tuple[Ints, Bools, Bools]:
    """Return each label's prediction in this piece, -1 without, and which predictions and which labels have the id of another one."""
    low, label_low = predictions.ids[:, 0], labels.ids[:, 0]
    places, label_places = low.argsort(), label_low.argsort()
    ordered, sought = low[places], label_low[label_places]
    match = np.full(len(labels), -1)
    if len(low):
        # A search for sorted values stays in the cache: four times as fast.
        near = np.minimum(ordered.searchsorted(sought), len(low) - 1)
        match[label_places] = np.where(ordered[near] == sought, places[near], -1)
    return match, _repeated(ordered, places), _repeated(sought, label_places)


def _repeated(ordered: NDArray[np.uint64], places: Ints) -> Bools:
    found = np.zeros(len(ordered), np.bool_)
    if len(ordered) < 2:
        return found
    same = ordered[1:] == ordered[:-1]
    if same.any():
        found[places[1:][same]] = True
        found[places[:-1][same]] = True
    return found


def _merged(plain: Joined, pairs: list[Pair]) -> Joined:
    if not pairs:
        if plain.numbers is None:
            plain.numbers = numbers_of(plain.values, types_of(plain.values))
        return plain
    rows = np.concatenate([plain.rows, np.array([pair.row for pair in pairs], np.int64)])
    order = np.concatenate([plain.order, np.array([pair.order for pair in pairs], np.int64)])
    offsets = np.concatenate([plain.label_offset, np.array([pair.label_offset for pair in pairs], np.int64)])
    values = [*plain.values, *(pair.value for pair in pairs)]
    marks = np.concatenate([plain.marks, np.array([mark_of(pair.value) for pair in pairs], np.uint8)])
    found = Joined(rows, order, offsets, values, None, marks).take(np.argsort(order, kind="stable"))
    found.numbers = numbers_of(found.values, types_of(found.values))
    return found
