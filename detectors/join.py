"""Join: predictions and labels of one piece of the log, matched by id, as if record after record.

Ids with one plain story (a new prediction, a label for a waiting one) are joined by column. Every other id of the piece (seen twice,
labelled before its prediction, taken back, at the edge of the window) goes through `disputes`, one record at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checked_columns import strange_pairs
from .columns import CONTRARY, FIT, UNFIT, Floats, Ints
from .disputes import Disputes, Pair, Rules
from .early_labels import EarlyLabels
from .model_table import ModelTable
from .outputs import Fresh, is_output, label_indices, marks_of, output_indices, place_classes
from .pending import SUPERSEDED, NewRows, Pending
from .pieces import Labels, Predictions
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


class Joiner:
    """The join of predictions and labels: both are kept until they can be matched or are too old."""

    def __init__(self, rules: Rules, table: ModelTable, pending: Pending, early: EarlyLabels) -> None:
        self.rules = rules
        self.table = table
        self.pending = pending
        self.early = early

    def join(self, inputs: tuple[Predictions, Floats], labels: Labels, disputes: Disputes) -> tuple[Bools, Joined]:
        """Return which predictions are new, and the pairs; new rows are held and pairs marked."""
        predictions, stored = inputs
        match, odd, odd_labels = _matched(predictions, labels)
        existing = self._existing(predictions, labels, match)
        self._disputed((predictions, labels, match), existing, (odd, odd_labels))
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
        joined = _merged(Joined(rows, labels.order[plain], labels.offset[plain], values, numbers), pairs)
        if disputes.superseded:
            self.pending.mark(np.array(disputes.superseded), SUPERSEDED)
        if disputes.hidden:
            self.pending.hide(np.array(disputes.hidden))
        if len(joined.rows):
            self.pending.mark(joined.rows, marks_of(joined.values, joined.numbers))
        added = np.arange(first, self.pending.head)
        if disputes.superseded or disputes.hidden:
            added = np.setdiff1d(added, np.array(disputes.superseded + disputes.hidden))
        self.pending.index(added)
        return new, joined

    def pairs(self, joined: Joined, fresh: Fresh) -> dict[str, Any]:
        """Return the columns of joined rows but the offsets and order; new classes get their indices here."""
        rows, pending = joined.rows, self.pending
        slots = pending.column("model", rows).astype(np.int64)
        place_classes(fresh, joined, slots, self.table)
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
            for kind, name in ((UNFIT, "unfit_scores"), (CONTRARY, "contrary_scores")):
                mine = (fitness == kind).nonzero()[0]
                self.table.count_rows(joined.order[mine], slots[mine], name)
        return {
            "model": slots,
            "version": pending.column("version", rows).astype(np.int64),
            "prediction_offset": pending.column("offset", rows),
            "ts": pending.column("ts", rows),
            "output": output,
            "label": label,
            "error": error,
            "scores": scores,
            "fitness": fitness,
        }

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

    def _disputed(self, rows: tuple[Predictions, Labels, Ints], existing: tuple[Ints, Ints], repeated: tuple[Bools, Bools]) -> None:
        """Add to the predictions and labels that occur twice all others without a plain story."""
        (predictions, labels, match), (odd, odd_labels) = rows, repeated
        odd |= existing[0] >= 0
        if len(self.early):
            odd |= self.early.among(predictions.ids)
        odd_labels |= ~(self._waiting(predictions, labels, existing[1]) | self._follows(predictions, labels, match))
        odd_labels |= strange_pairs(labels, self.table)
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
    by_order = np.argsort(order, kind="stable")
    values = [values[at] for at in by_order.tolist()]
    return Joined(rows[by_order], order[by_order], offsets[by_order], values, numbers_of(values, types_of(values)))
