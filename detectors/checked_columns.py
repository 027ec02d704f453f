"""Checked columns: values of many records as arrays, with the rows that look wrong. What is wrong with them, `admission` says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..schemas.layouts import Layout
from .admission import FLOAT32_MAX, MAX_TEXT_BYTES, seconds
from .columns import Floats, Ints
from .model_table import ModelTable, kind_of
from .pending import WIDEST, Ids

Wrong = NDArray[np.bool_]
KINDS: dict[type, str] = {int: "number", float: "number", str: "text", bool: "truth", type(None): "none"}
KIND_CODES: dict[str | None, int] = {"number": 0, "text": 1, "truth": 2, "none": 3, None: -1}


class HasLayout(Protocol):
    """Be what knows the layout of a row."""

    @property
    def layout(self) -> Layout:
        """Return the layout."""


def numbers(values: Sequence[float | None]) -> tuple[Floats, Wrong]:
    """Return numbers, NaN for None, and which are no finite float32."""
    count = len(values)
    missing = values.count(None)
    if missing == count:
        return np.full(count, np.nan), np.zeros(count, np.bool_)
    column = np.array(values, np.float64)
    wrong = ~(np.abs(column) <= FLOAT32_MAX)
    if missing:
        wrong &= np.fromiter((value is not None for value in values), np.bool_, count)
    return column, wrong


def times(values: Sequence[Any], stamps_ms: Ints) -> tuple[Floats, Wrong]:
    """Return event times in seconds, the record's time stamp for None, and which are not finite."""
    try:
        column, wrong = numbers(values)
    except TypeError:
        column, wrong = numbers([None if value is None else seconds(value) for value in values])
    missing = np.isnan(column) & ~wrong
    if missing.any():
        column[missing] = stamps_ms[missing] / 1000.0
    # A record without a time stamp of its own gives no year to check.
    column[missing & (stamps_ms < 0)] = 0.0
    return column, wrong


def columns_of_scores(values: Sequence[list[float] | None], slots: Ints, table: ModelTable) -> tuple[Floats, Floats, Wrong]:
    """Return scores (n, widest up to WIDEST; NaN beyond), the highest score of each row, and which rows are wrong."""
    count = len(values)
    if values.count(None) == count:
        return np.full((count, 0), np.nan), np.full(count, np.nan), np.zeros(count, np.bool_)
    rows: Sequence[Any] = [() if row is None else row for row in values] if None in values else values
    widths = np.array(list(map(len, rows)))
    widest = int(widths.max())
    flat = np.array(list(chain.from_iterable(rows)), np.float64)
    if int(widths.min()) == widest:
        scores = flat.reshape(count, widest)
    else:
        scores = np.full((count, widest), np.nan)
        scores[np.arange(widest) < widths[:, None]] = flat
    confidence = np.full(count, np.nan)
    for column in range(widest):
        np.fmax(confidence, scores[:, column], out=confidence)
    wrong = np.zeros(count, np.bool_)
    if np.count_nonzero(np.abs(flat) <= FLOAT32_MAX) != len(flat):
        wrong = np.count_nonzero(np.abs(scores) <= FLOAT32_MAX, axis=1) != widths
    reserved = np.array([model.reserved for model in table.models])[slots]
    unlike = (reserved > 0) & (widths != reserved)
    if unlike.any():
        wrong |= unlike & np.array([row is not None for row in values])
    if widest > WIDEST:
        scores[widths > WIDEST] = np.nan
        scores = scores[:, :WIDEST]
    return scores, confidence, wrong


def groups_of(readers: Sequence[HasLayout], features: list[bytes]) -> list[tuple[Layout, Ints, Floats]]:
    """Return the features of all rows, those of one layout together: layout, rows, float64 values (rows, names)."""
    layouts = {id(reader.layout): reader.layout for reader in dict.fromkeys(readers)}
    if len(layouts) == 1:
        only = readers[0].layout
        return [(only, np.arange(len(features)), _matrix(only, features))]
    which = np.array([id(reader.layout) for reader in readers])
    groups = []
    for ident, layout in layouts.items():
        rows = np.flatnonzero(which == ident)
        groups.append((layout, rows, _matrix(layout, [features[row] for row in rows.tolist()])))
    return groups


def _matrix(layout: Layout, features: list[bytes]) -> Floats:
    joined, count = b"".join(features), len(features)
    if layout.width == 0:
        return np.zeros((count, 0))
    wide = np.fromiter(map(len, features), np.int64, count) != layout.size_bytes
    if wide.all():
        return np.frombuffer(joined, np.float64).reshape(count, layout.width)
    if not wide.any():
        return np.frombuffer(joined, np.float32).reshape(count, layout.width).astype(np.float64)
    values = np.empty((count, layout.width))
    for row, raw in enumerate(features):
        values[row] = np.frombuffer(raw, np.float64 if wide[row] else np.float32)
    return values


def hashed(idents: Sequence[str], names: Ids) -> Ids:
    """Return 128 bits for each prediction id, mixed with those of the model's name."""
    digest = xxhash.xxh3_128_digest
    joined = b"".join([digest(ident.encode()) for ident in idents])
    return np.frombuffer(joined, np.uint64).reshape(-1, 2) ^ names


def strange_names(names: list[str], expected: Sequence[str | None]) -> list[bool]:
    """Return which names are not those that the keys say; nothing where all are."""
    return [] if names == expected else [name != said for name, said in zip(names, expected, strict=True)]


def strange_outputs(outputs: list[Any], slots: Ints, table: ModelTable) -> Wrong:
    """Return which outputs are of another kind than the model's others, no class of its signature, or not finite."""
    listed = [model if model.registered and model.task == "classification" else None for model in table.models]
    lookups = [None if model is None else model.lookup for model in listed]
    return _unlike(outputs, slots, table, (lookups, [0 if model is None else model.span for model in listed])) | _strange(
        outputs, set(map(type, outputs))
    )


def _unlike(values: list[Any], slots: Ints, table: ModelTable, known: tuple[list[Any], list[int]]) -> Wrong:
    """Return which values are of another kind than their model's outputs, or not known: lookup and span of each slot."""
    count = len(values)
    types = list(map(type, values))
    found = {KINDS[kind] for kind in set(types)}
    mine = np.array([KIND_CODES[model.kind] for model in table.models], np.int64)[slots]
    if len(found) == 1:
        wrong: Wrong = mine != KIND_CODES[found.pop()]
    else:
        wrong = mine != np.fromiter((KIND_CODES[KINDS[kind]] for kind in types), np.int64, count)
    lookups, spans = known
    if all(lookup is None for lookup in lookups):
        return wrong
    span = np.array(spans)[slots]
    if set(types) == {int} and span.all():
        try:
            column = np.array(values, np.int64)
        except OverflowError:
            pass
        else:
            return wrong | (column < 0) | (column >= span)
    absent = [
        (lookup := lookups[slot]) is not None and value not in lookup for slot, value in zip(slots.tolist(), values, strict=True)
    ]
    if True in absent:
        wrong |= np.array(absent)
    return wrong


def strange_pairs(values: list[Any], slots: Ints, table: ModelTable) -> Wrong:
    """Return which labels cannot be judged by column: null, of an unknown model, of another kind, or of a class not seen so far."""
    unknown = slots < 0
    if unknown.any():
        wrong = unknown.copy()
        known = np.flatnonzero(~unknown)
        wrong[known] = strange_pairs([values[at] for at in known.tolist()], slots[known], table) if len(known) else False
        return wrong
    listed = [model if model.task == "classification" else None for model in table.models]
    lookups = [None if model is None else model.index for model in listed]
    return _unlike(values, slots, table, (lookups, [0 if model is None else model.span for model in listed]))


def strange_labels(values: Sequence[Any]) -> Wrong:
    """Return which labels are not finite, or too long."""
    return _strange(values, set(map(type, values)))


def _strange(values: Sequence[Any], types: set[type]) -> Wrong:
    count = len(values)
    if types <= {int, float, bool}:
        try:
            return ~(np.abs(np.array(values, np.float64)) <= FLOAT32_MAX)
        except OverflowError:
            pass
    if types == {bool}:
        return np.zeros(count, np.bool_)
    return np.fromiter((_odd(value) for value in values), np.bool_, count)


def _odd(value: Any) -> bool:
    if value is None:
        return False
    if kind_of(value) == "text":
        return not 1 <= len(value) <= MAX_TEXT_BYTES // 4 and not 1 <= len(value.encode()) <= MAX_TEXT_BYTES
    return not -FLOAT32_MAX <= value <= FLOAT32_MAX
