"""Outputs and labels as numbers: what the join buffer keeps for an output, and the class indices of joined pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..schemas.events import Scalar
from .bisection import Blame, in_halves
from .columns import Floats, Ints
from .faults import Fault, contained
from .inspection import Inspector
from .model import MAX_LEARNED_CLASSES, Model, is_whole
from .model_table import LABELS, OUTPUTS, ModelTable
from .over_limit import OverLimit
from .pending import FIRST_FINGERPRINT, Marks, fingerprints
from .pieces import Piece, Predictions, joined_predictions
from .scalars import Spot, distinct, translated


@dataclass(slots=True)
class Fresh:
    """Outputs that no prediction of their model had before, as (order, slot, value, index of the highest score).

    `switches` says from which order on a slot regresses, `switched` which slots do.
    """

    values: list[tuple[int, int, Scalar, int | None]]
    switches: list[tuple[int, int]]
    switched: set[int] = field(default_factory=set)


def store_outputs(rows: Predictions, table: ModelTable, inspector: Inspector, piece: Piece) -> tuple[Predictions, Floats, Fresh]:
    """Return the sound rows, the number kept for each output, and what is new; `switches` says from which order on a slot regresses.

    A row that this fails on becomes a dead letter, as a fault of ours.
    """
    fresh = Fresh([], [])
    blame = Blame(inspector, [piece])

    def store(start: int, stop: int) -> tuple[Predictions, Floats]:
        part = rows.part(start, stop)
        known = _known(part, table)
        if None not in known.values():
            # What is stored of a number is the number itself.
            return part, part.numbers if part.numbers is not None else translated(part.slot, part.outputs, None, known)
        got: list[Any] = [known[pair] for pair in zip(part.slot.tolist(), part.outputs, strict=True)]
        bad = []
        for at in [at for at, number in enumerate(got) if number is None]:
            try:
                got[at] = _store_new(part, at, (table, inspector, piece), fresh)
            except BaseException as problem:  # noqa: BLE001 - one record must not hurt another
                blame.put(int(part.order[at]), contained(problem))
            if got[at] is None:
                bad.append(at)
        if bad:
            keep = np.ones(len(part), np.bool_)
            keep[bad] = False
            part, got = part.take(keep), [number for number in got if number is not None]
        return part, np.array(got, np.float64)

    parts = in_halves(store, (0, len(rows)), lambda at, fault: blame.put(int(rows.order[at]), fault))
    if len(parts) == 1:
        return *parts[0], fresh
    return joined_predictions([part for part, _ in parts]), np.concatenate([[], *(numbers for _, numbers in parts)]), fresh


def _store_new(rows: Predictions, at: int, where: tuple[ModelTable, Inspector, Piece], fresh: Fresh) -> float | None:
    """Return the number kept for an output that no prediction of its model had before this piece, None where it is refused."""
    table, inspector, piece = where
    value, slot, order = rows.outputs[at], int(rows.slot[at]), int(rows.order[at])
    model = table.models[slot]
    if slot in fresh.switched:
        return float(value)
    if value in model.stored:
        return model.stored[value]
    problem = _new_output(model, value)
    if problem == "":
        number = float(value)
        fresh.switches.append((order, slot))
        fresh.switched.add(slot)
        return number
    place = piece.start + int(np.searchsorted(piece.order, order))
    if problem is not None:
        inspector.refuse(piece, place, "invalid", problem)
        return None
    scores = rows.scores[at]
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else None
    if not table.may_learn(slot, OUTPUTS):
        what = f"outputs that models of a partition learn must be at most {inspector.config.max_total_outputs}"
        inspector.refuse_over(piece, place, OverLimit("max_total_outputs", f"{what}, got another one of {model.name!r}"))
        return None
    number = model.store(value)
    fresh.values.append((order, slot, value, best))
    return number


def _known(rows: Predictions, table: ModelTable) -> dict[Spot, Any]:
    """Return the number kept for each output that occurs, None for a new one; nothing where all are numbers of regressions."""
    regress = table.facts().regress
    if rows.numbers is not None and regress.all():
        return {}
    pairs = distinct(rows.slot, rows.outputs, rows.numbers)
    return {(slot, value): float(value) if regress[slot] else table.models[slot].lookup.get(value) for slot, value in pairs}


def _new_output(model: Model, value: Any) -> str | None:
    """Return why a learned model cannot have this new output; an empty text where it is a regression from here on."""
    full = len(model.stored) >= MAX_LEARNED_CLASSES
    if model.kind == "number":
        if is_whole(value) and not full:
            return None
        if model.reserved:
            return "output must be one of few whole numbers where there are scores; register the model otherwise"
        return ""
    return f"classes of a model that is not registered must be at most {MAX_LEARNED_CLASSES}" if full else None


def place_classes(fresh: Fresh, joined: Any, slots: Ints, table: ModelTable) -> list[Fault]:
    """Give class indices, in merged order, to new outputs and to the new labels among the joined ones; return what failed.

    What has none shares the index of all others.
    """
    new: list[tuple[int, int, int, Scalar, int | None]] = [
        (order, 0, slot, value, best) for order, slot, value, best in fresh.values
    ]
    facts = table.facts()
    indices = facts.indices
    absent = (
        set()
        if joined.numbers is not None and _are_indices(joined.numbers, facts.spans[slots]).all()
        else {
            (slot, value)
            for slot, value in distinct(slots, joined.values, joined.numbers)
            if (index := indices[slot]) is not None and value not in index
        }
    )
    if absent:
        for at, pair in enumerate(zip(slots.tolist(), joined.values, strict=True)):
            if pair in absent:
                new.append((int(joined.order[at]), 1, *pair, None))
    faults = []
    for _, is_label, slot, value, best in sorted(new, key=lambda one: one[:2]):
        model = table.models[slot]
        try:
            if value in model.index or not is_label or table.may_learn(slot, LABELS):
                table.place(slot, value, best)
        except BaseException as problem:  # noqa: BLE001 - one model must not hurt another
            faults.append(Fault(model.name, "place of a class", contained(problem)))
    return faults


def output_indices(stored: Floats, slots: Ints, table: ModelTable) -> Floats:
    """Return the class index of each stored output, or the number itself for regression."""
    return _indices((slots, stored, stored), table, _by_stored)


def label_indices(values: list[Any], numbers: Floats | None, slots: Ints, table: ModelTable) -> Floats:
    """Return the class index of each label, or the number itself for regression."""
    return _indices((slots, values, numbers), table, lambda model: model.index)


def _indices(
    rows: tuple[Ints, list[Any] | Floats, Floats | None], table: ModelTable, index_of: Callable[[Model], dict[Any, int]]
) -> Floats:
    """Return the index of each value, that of all others for one that has none; for a regression the value itself."""
    slots, values, numbers = rows
    facts = table.facts()
    if numbers is None:
        return _looked_up(rows, table, index_of)
    own = facts.regress[slots] | _are_indices(numbers, facts.spans[slots])
    if own.all():
        return numbers
    if not own.any():
        return _looked_up(rows, table, index_of)
    rest = np.flatnonzero(~own)
    some = values[rest] if isinstance(values, np.ndarray) else [values[at] for at in rest.tolist()]
    found = numbers.copy()
    found[rest] = _looked_up((slots[rest], some, numbers[rest]), table, index_of)
    return found


def _looked_up(
    rows: tuple[Ints, list[Any] | Floats, Floats | None], table: ModelTable, index_of: Callable[[Model], dict[Any, int]]
) -> Floats:
    found: dict[Spot, float] = {}
    for slot, value in distinct(*rows):
        model = table.models[slot]
        index = value if model.task == "regression" else index_of(model).get(value)
        found[slot, value] = model.most_classes if index is None else index
    return translated(*rows, found)


def _are_indices(numbers: Floats, spans: Ints) -> NDArray[np.bool_]:
    """Return which numbers are the indices of their classes, as 0 and 1 mostly are."""
    found: NDArray[np.bool_] = (numbers >= 0) & (numbers < spans) & (numbers == np.floor(numbers))
    return found


def is_output(stored: float, label: Any, model: Model) -> bool:
    """Return whether a label is the output that is stored so, by value: neither may be a class of the model."""
    if isinstance(label, str):
        return model.stored.get(label) == stored
    return bool(label == stored)


def marks_of(values: list[Any], numbers: Floats | None) -> Marks:
    """Return the fingerprints of labels."""
    if numbers is None:
        return np.array([mark_of(value) for value in values], np.uint8)
    return fingerprints(numbers)


@lru_cache(maxsize=4096)
def mark_of(value: Scalar) -> int:
    """Return the fingerprint of one label."""
    if isinstance(value, str):
        return int(xxhash.xxh3_64_intdigest(value.encode()) % (256 - FIRST_FINGERPRINT)) + FIRST_FINGERPRINT
    return int(fingerprints(np.array([value], np.float64))[0])


def _by_stored(model: Model) -> dict[float, int]:
    if len(model.by_stored) != len(model.stored):
        index, other = model.index, model.most_classes
        model.by_stored = {number: index.get(value, other) for value, number in model.stored.items()}
    return model.by_stored
