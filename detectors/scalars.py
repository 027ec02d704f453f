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


def numbers_of(values: Sequence[Any] | NDArray[Any]) -> Floats | None:
    """Return values as float64 where all are numbers or truth values that fit, else None."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    if set(map(type, values)) <= NUMERIC:
        try:
            return np.fromiter(values, np.float64, len(values))
        except OverflowError:
            pass
    return None


def distinct(slots: Ints, values: Sequence[Any], numbers: Floats | None) -> set[Spot]:
    """Return the pairs of model slot and value that occur; `numbers` as `numbers_of` gives."""
    if len(slots) < FEW:
        return set(zip(slots.tolist(), values, strict=True))
    first, last = int(slots.min()), int(slots.max())
    if numbers is not None and numbers.min() >= 0 and (numbers.max() + 1) * (last + 1) <= MAX_CELLS:
        whole = numbers.astype(np.int64)
        if (whole == numbers).all():
            width = int(whole.max()) + 1
            cells = np.bincount(slots * width + whole).nonzero()[0].tolist()
            return {divmod(cell, width) for cell in cells}
    if first == last:
        return {(first, value) for value in set(values)}
    return set(zip(slots.tolist(), values, strict=True))


def translated(slots: Ints, values: Sequence[Any], found: dict[Spot, float]) -> Floats:
    """Return for each row what `found` says of its slot and value."""
    return np.fromiter(map(found.__getitem__, zip(slots.tolist(), values, strict=True)), np.float64, len(values))
