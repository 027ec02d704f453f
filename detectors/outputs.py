"""Outputs and labels as numbers: what the join buffer keeps for an output, and the class indices of joined pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

from ..schemas.events import Scalar
from .columns import Floats, Ints
from .inspection import Inspector
from .model_table import MAX_LEARNED_CLASSES, Model, ModelTable, is_whole
from .pending import FIRST_FINGERPRINT, Marks, fingerprints
from .pieces import Piece, Predictions


@dataclass(slots=True)
class Fresh:
    """Hold outputs that no prediction of their model had before, as (order, slot, value, index of the highest score)."""

    values: list[tuple[int, int, Scalar, int | None]]
    switches: list[tuple[int, int]]


def store_outputs(rows: Predictions, table: ModelTable, inspector: Inspector, piece: Piece) -> tuple[Predictions, Floats, Fresh]:
    """Return the sound rows, the number kept for each output, and what is new; `switches` says from which order on a slot regresses."""
    fresh = Fresh([], [])
    lookups = [model.lookup if model.task == "classification" else None for model in table.models]
    slots = rows.slot.tolist()
    plain = [model.task == "regression" or (model.registered and model.span > 0) for model in table.models]
    if all(plain):
        return rows, np.array(rows.outputs, np.float64), fresh
    got: list[Any] = [
        float(value) if (lookup := lookups[slot]) is None else lookup.get(value)
        for slot, value in zip(slots, rows.outputs, strict=True)
    ]
    if None not in got:
        return rows, np.array(got), fresh
    switched: set[int] = set()
    bad = []
    for at in [at for at, number in enumerate(got) if number is None]:
        value, slot = rows.outputs[at], slots[at]
        model, order = table.models[slot], int(rows.order[at])
        if slot in switched or value in model.stored:
            got[at] = float(value) if slot in switched else model.stored[value]
            continue
        problem = _new_output(model, value)
        if problem is None:
            got[at] = model.store(value)
            scores = rows.scores[at]
            fresh.values.append((order, slot, value, int(np.nanargmax(scores)) if np.isfinite(scores).any() else None))
        elif problem == "":
            got[at] = float(value)
            switched.add(slot)
            fresh.switches.append((order, slot))
        else:
            bad.append(at)
            inspector.refuse(piece, piece.start + int(np.searchsorted(piece.order, order)), "invalid", problem)
    if bad:
        keep = np.ones(len(rows), np.bool_)
        keep[bad] = False
        rows, got = rows.take(keep), [number for at, number in enumerate(got) if keep[at]]
    return rows, np.array(got), fresh


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


def place_classes(fresh: Fresh, slots: list[int], orders: Ints, values: list[Any], table: ModelTable) -> None:
    """Give class indices, in merged order, to new outputs and to the new labels among `values`."""
    new: list[tuple[int, int, int, Scalar, int | None]] = [
        (order, 0, slot, value, best) for order, slot, value, best in fresh.values
    ]
    indices = [model.index if model.task == "classification" and not model.registered else None for model in table.models]
    absent = [] if not any(index is not None for index in indices) else enumerate(zip(slots, values, strict=True))
    for at, (slot, value) in absent:
        index = indices[slot]
        if index is not None and value not in index:
            new.append((int(orders[at]), 1, slot, value, None))
    for _, _, slot, value, best in sorted(new, key=lambda one: one[:2]):
        table.models[slot].place(value, best)


def output_indices(stored: Floats, slots: list[int], table: ModelTable) -> Floats:
    """Return the class index of each stored output, or the number itself for regression."""
    maps = [_by_stored(model) if model.task == "classification" and not model.span else None for model in table.models]
    if not any(found is not None for found in maps):
        return stored
    numbers = stored.tolist()
    return np.array([n if (found := maps[slot]) is None else found[n] for slot, n in zip(slots, numbers, strict=True)], np.float64)


def label_indices(values: list[Any], slots: list[int], table: ModelTable) -> Floats:
    """Return the class index of each label, or the number itself for regression."""
    maps = [model.index if model.task == "classification" and not model.span else None for model in table.models]
    if not any(index is not None for index in maps):
        return np.array(values, np.float64)
    lasts = [len(model.classes) for model in table.models]
    found = [
        value if (index := maps[slot]) is None else index.get(value, lasts[slot]) for slot, value in zip(slots, values, strict=True)
    ]
    return np.array(found, np.float64)


def marks_of(values: list[Any]) -> Marks:
    """Return the fingerprints of labels."""
    if str in set(map(type, values)):
        return np.array([mark_of(value) for value in values], np.uint8)
    return fingerprints(np.array(values, np.float64))


@lru_cache(maxsize=4096)
def mark_of(value: Scalar) -> int:
    """Return the fingerprint of one label."""
    if isinstance(value, str):
        return int(xxhash.xxh3_64_intdigest(value.encode()) % (256 - FIRST_FINGERPRINT)) + FIRST_FINGERPRINT
    return int(fingerprints(np.array([value], np.float64))[0])


def _by_stored(model: Model) -> dict[float, int]:
    if len(model.by_stored) != len(model.stored):
        index, last = model.index, len(model.classes)
        model.by_stored = {number: index.get(value, last) for value, number in model.stored.items()}
    return model.by_stored
