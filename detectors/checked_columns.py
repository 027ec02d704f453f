"""Checked columns: values of many records as arrays, with the rows that look wrong. What is wrong with them, `admission` says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..schemas.layouts import Layout
from ..schemas.values import FLOAT32_MAX, LEAST_WHOLE, MOST_WHOLE, seconds
from .admission import MAX_TEXT_BYTES, label_problem
from .columns import Floats, Ints
from .model import KIND_CODES, kind_of
from .model_table import ModelTable
from .pending import WIDEST, Ids
from .pieces import Labels, Predictions
from .scalars import Spot, distinct

Wrong = NDArray[np.bool_]
Values = tuple[Ints, list[Any], Floats | None]
KINDS: dict[type, str] = {int: "number", float: "number", str: "text", bool: "truth", type(None): "none"}


def whole_numbers(values: Sequence[int]) -> Ints:
    """Return whole numbers that are known to fit in 64 bits."""
    if values.count(values[0]) == len(values):
        return np.full(len(values), values[0])
    return np.fromiter(values, np.int64, len(values))


def numbers(values: Sequence[float | None] | Floats) -> tuple[Floats, Wrong]:
    """Return numbers, NaN for None, and which are no finite float32."""
    if isinstance(values, np.ndarray):
        return values, ~(np.abs(values) <= FLOAT32_MAX)
    count = len(values)
    missing = values.count(None)
    if missing == count:
        return np.full(count, np.nan), np.zeros(count, np.bool_)
    column = np.fromiter(values, np.float64, count) if not missing else np.array(values, np.float64)
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


def columns_of_scores(
    values: Sequence[list[float] | None] | Floats, slots: Ints, table: ModelTable
) -> tuple[Floats, Floats, Wrong]:
    """Return scores (n, widest up to WIDEST; NaN beyond), the highest score of each row, and which rows are wrong."""
    count = len(values)
    if isinstance(values, np.ndarray):
        return _checked_scores(values, np.full(count, values.shape[1]), slots, table)
    if values.count(None) == count:
        return np.full((count, 0), np.nan), np.full(count, np.nan), np.zeros(count, np.bool_)
    rows: Sequence[Any] = [() if row is None else row for row in values] if None in values else values
    widths = np.fromiter(map(len, rows), np.int64, count)
    widest = int(widths.max())
    flat = np.array(list(chain.from_iterable(rows)), np.float64)
    if int(widths.min()) == widest:
        scores = flat.reshape(count, widest)
    else:
        scores = np.full((count, widest), np.nan)
        scores[np.arange(widest) < widths[:, None]] = flat
    scores, confidence, wrong = _checked_scores(scores, widths, slots, table)
    if None in values:
        # A row without scores is short of them in no model.
        wrong &= np.array([row is not None for row in values])
    return scores, confidence, wrong


def _checked_scores(scores: Floats, widths: Ints, slots: Ints, table: ModelTable) -> tuple[Floats, Floats, Wrong]:
    widest = scores.shape[1]
    confidence = np.full(len(scores), np.nan)
    for column in range(widest):
        np.fmax(confidence, scores[:, column], out=confidence)
    wrong: Wrong = np.zeros(len(scores), np.bool_)
    finite = np.abs(scores) <= FLOAT32_MAX
    if np.count_nonzero(finite) != int(widths.sum()):
        wrong = np.count_nonzero(finite, axis=1) != widths
    facts = table.facts()
    reserved = facts.reserved[slots]
    unlike = (reserved > 0) & (widths != reserved)
    if unlike.any():
        wrong |= unlike & ~((widths == 1) & facts.binary[slots])
    if widest > WIDEST:
        scores[widths > WIDEST] = np.nan
        scores = scores[:, :WIDEST]
    return scores, confidence, wrong


def groups_of(layouts: Sequence[Layout], features: Sequence[bytes] | Floats) -> list[tuple[Layout, Ints, Floats]]:
    """Return the features of all rows, those of one layout together: layout, rows, float64 values (rows, names).

    `layouts` has one for all rows, or one for each; features of one layout may be an array of all rows.
    """
    if isinstance(features, np.ndarray):
        return [(layouts[0], np.arange(len(features)), features)]
    if len(layouts) == 1:
        return [(layouts[0], np.arange(len(features)), _matrix(layouts[0], features))]
    numbers_of = {layout: at for at, layout in enumerate(dict.fromkeys(layouts))}
    which = np.fromiter(map(numbers_of.__getitem__, layouts), np.int64, len(layouts))
    groups = []
    for layout, number in numbers_of.items():
        rows = np.flatnonzero(which == number)
        groups.append((layout, rows, _matrix(layout, [features[row] for row in rows.tolist()])))
    return groups


# A signalling NaN would warn; what is not finite is sorted out by column.
@np.errstate(invalid="ignore")
def _matrix(layout: Layout, features: Sequence[bytes]) -> Floats:
    joined, count = b"".join(features), len(features)
    if layout.width == 0:
        return np.zeros((count, 0))
    sizes = set(map(len, features))
    if len(sizes) == 1:
        narrow = layout.size_bytes in sizes
        return (
            np.frombuffer(joined, np.float32 if narrow else np.float64).reshape(count, layout.width).astype(np.float64, copy=False)
        )
    wide = [len(raw) != layout.size_bytes for raw in features]
    values = np.empty((count, layout.width))
    for row, raw in enumerate(features):
        values[row] = np.frombuffer(raw, np.float64 if wide[row] else np.float32)
    return values


def hashed(idents: Sequence[str] | list[bytes], names: Ids) -> Ids:
    """Return 128 bits for each prediction id, mixed with those of the model's name."""
    encoded = idents if isinstance(idents[0], bytes) else map(str.encode, idents)  # type: ignore[arg-type]
    joined = b"".join(map(xxhash.xxh3_128_digest, encoded))  # type: ignore[arg-type]
    return np.frombuffer(joined, np.uint64).reshape(-1, 2) ^ names


def strange_names(names: list[str], expected: Sequence[str | None]) -> list[bool]:
    """Return which names are not those that the keys say; nothing where all are."""
    return [] if names == expected else [name != said for name, said in zip(names, expected, strict=True)]


def strange_outputs(rows: Predictions, table: ModelTable) -> Wrong:
    """Return which outputs are of another kind than the model's others, no class of its signature, or not finite."""
    facts = table.facts()
    lookups = facts.lookups if table.has_lookups else ()
    columns = rows.slot, rows.outputs, rows.numbers
    wrong = _unlike(columns, rows.types, facts.kinds)
    return wrong | _are_among(columns, _unknown(columns, lookups)) | strange_scalars(rows.outputs, rows.numbers, rows.types)


def _unlike(rows: Values, types: set[type], kinds: Ints) -> Wrong:
    """Return which values are of another kind than their model's outputs; `kinds` has that of each slot."""
    slots, values, _ = rows
    found = {KINDS[kind] for kind in types}
    mine = kinds[slots]
    if len(found) == 1:
        wrong: Wrong = mine != KIND_CODES[found.pop()]
    else:
        wrong = mine != np.fromiter((KIND_CODES[KINDS[type(value)]] for value in values), np.int64, len(values))
    return wrong


def _unknown(rows: Values, known: Sequence[Any]) -> set[Spot]:
    """Return the values that occur and are not among the known ones of their slot, where it has any."""
    if all(lookup is None for lookup in known):
        return set()
    return {(slot, value) for slot, value in distinct(*rows) if known[slot] is not None and value not in known[slot]}


def _are_among(rows: Values, spots: set[Spot]) -> Wrong:
    slots, values, _ = rows
    if not spots:
        return np.zeros(len(slots), np.bool_)
    return np.array([pair in spots for pair in zip(slots.tolist(), values, strict=True)])


def strange_pairs(labels: Labels, table: ModelTable) -> Wrong:
    """Return which labels cannot be judged by column: null, of an unknown model, of another kind, or none that its model can have."""
    slots, values, numbers = labels.slot, labels.values, labels.numbers
    unknown = slots < 0
    if not unknown.any():
        return _strange_labels((slots, values, numbers), labels.types, table)
    wrong = unknown.copy()
    known = np.flatnonzero(~unknown)
    if len(known):
        rest = [values[at] for at in known.tolist()]
        some = slots[known], rest, None if numbers is None else numbers[known]
        wrong[known] = _strange_labels(some, labels.types, table)
    return wrong


def _strange_labels(rows: Values, types: set[type], table: ModelTable) -> Wrong:
    facts = table.facts()
    # A class that no row had so far is asked for once, not for each of its rows: of a new model all are.
    new = _unknown(rows, () if facts.regress.all() else facts.indices)
    problems = {(slot, value) for slot, value in new if label_problem(value, table.models[slot]) is not None}
    return _unlike(rows, types, facts.kinds) | _are_among(rows, problems)


def strange_scalars(values: Sequence[Any], numbers: Floats | None, types: set[type]) -> Wrong:
    """Return which outputs or labels are not finite, whole numbers of more than 64 bits, or too long."""
    if numbers is not None:
        wrong: Wrong = ~(np.abs(numbers) <= FLOAT32_MAX)
        if int in types:
            # As float64 the ends of the range cannot be told from what lies beyond them: admission looks at the number itself.
            wrong |= np.abs(numbers) >= -LEAST_WHOLE
        return wrong
    return np.fromiter((_odd(value) for value in values), np.bool_, len(values))


def _odd(value: Any) -> bool:
    if value is None:
        return False
    if kind_of(value) == "text":
        return not 1 <= len(value) <= MAX_TEXT_BYTES // 4 and not 1 <= len(value.encode()) <= MAX_TEXT_BYTES
    if isinstance(value, int):
        return not LEAST_WHOLE <= value <= MOST_WHOLE
    return not -FLOAT32_MAX <= value <= FLOAT32_MAX
