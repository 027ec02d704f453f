"""Scalars: outputs and labels of many rows, which repeat a few values. What holds for each distinct value of a model is asked once.

Values that Python counts as equal (1, 1.0 and True) are one here, as they are in the dicts of classes; kinds are checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Floats, Ints

NUMERIC = {int, float, bool}
MAX_CELLS = 65_536
FEW = 64
Spot = tuple[int, Any]


def types_of(values: Sequence[Any] | NDArray[Any]) -> set[type]:
    """Return which types occur; of an array of numbers float stands for all."""
    if isinstance(values, np.ndarray):
        return {bool} if values.dtype == np.bool_ else {float}
    return set(map(type, values))


def numbers_of(values: Sequence[Any] | NDArray[Any], types: set[type]) -> Floats | None:
    """Return values as float64 where all are numbers or truth values that fit, else None."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    if types <= NUMERIC:
        try:
            return np.fromiter(values, np.float64, len(values))
        except OverflowError:
            pass
    return None


def distinct(slots: Ints, values: Sequence[Any] | Floats, numbers: Floats | None) -> set[Spot]:
    """Return the pairs of model slot and value that occur; `numbers` as `numbers_of` gives."""
    if len(slots) >= FEW:
        cells = _cells(slots, numbers)
        if cells is not None:
            return {divmod(cell, cells[1]) for cell in np.bincount(cells[0]).nonzero()[0].tolist()}
    said = listed(values)
    first = int(slots[0]) if len(slots) else -1
    if (slots == first).all():
        return {(first, value) for value in set(said)}
    return set(zip(slots.tolist(), said, strict=True))


def translated(slots: Ints, values: Sequence[Any] | Floats, numbers: Floats | None, found: dict[Spot, float]) -> Floats:
    """Return for each row what `found` says of its slot and value; it has what `distinct` gives of the same rows."""
    cells = _cells(slots, numbers) if len(slots) >= FEW else None
    if cells is not None:
        table = np.zeros(max((slot + 1) * cells[1] for slot, _ in found))
        for (slot, value), number in found.items():
            table[slot * cells[1] + int(value)] = number
        return table.take(cells[0])
    said = listed(values)
    if len({slot for slot, _ in found}) == 1:
        by_value = {value: number for (_, value), number in found.items()}
        return np.fromiter(map(by_value.__getitem__, said), np.float64, len(slots))
    return np.fromiter(map(found.__getitem__, zip(slots.tolist(), said, strict=True)), np.float64, len(slots))


def _cells(slots: Ints, numbers: Floats | None) -> tuple[Ints, int] | None:
    """Return a whole number for each row, slot times width plus value, and the width; None where values are no small whole numbers."""
    if numbers is None or not numbers.min() >= 0 or not (numbers.max() + 1) * (int(slots.max()) + 1) <= MAX_CELLS:
        return None
    whole = numbers.astype(np.int64)
    if not (whole == numbers).all():
        return None
    width = int(whole.max()) + 1
    return slots * width + whole, width


def listed(values: Sequence[Any] | NDArray[Any]) -> Sequence[Any]:
    """Return the values of an array as Python's own, and others as they are."""
    return values.tolist() if isinstance(values, np.ndarray) else values
