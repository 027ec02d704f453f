"""Facts: what rows are checked against, by model slot, in arrays that grow by doubling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..schemas.events import Scalar


class Facts(NamedTuple):
    """By slot what many rows are checked against. `lookups`: of registered classes; `indices`: of all; None for a regression.

    `others`: the index of what has none of its own. `binary`: models of which a single score is the chance of the second class.
    `spans`: how many classes are each its own index, where all are.
    """

    kinds: NDArray[np.int64]
    reserved: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    regress: NDArray[np.bool_]
    others: NDArray[np.int64]
    binary: NDArray[np.bool_]
    spans: NDArray[np.int64]
    lookups: list[dict[Scalar, float] | None]
    indices: list[dict[Scalar, int] | None]


NO_COLUMNS: tuple[NDArray[Any], ...] = tuple(
    np.zeros(0, kind) for kind in (np.int64, np.int64, np.int64, np.bool_, np.int64, np.bool_, np.int64)
)


def grown(old: Facts | None, count: int) -> Facts:
    """Return facts of `count` slots; the new ones are to be filled in."""
    known = 0 if old is None else len(old.lookups)
    columns: tuple[NDArray[Any], ...] = NO_COLUMNS if old is None else old[:7]
    rooms = [column if column.base is None else column.base for column in columns]
    if len(rooms[0]) < count:
        rooms = [np.zeros(2 * count, column.dtype) for column in columns]
        for room, column in zip(rooms, columns, strict=True):
            room[:known] = column
    lookups, indices = ([], []) if old is None else (old.lookups, old.indices)
    for held in (lookups, indices):
        held.extend([None] * (count - len(held)))
    kinds, reserved, first_rows, regress, others, binary, spans = (room[:count] for room in rooms)
    return Facts(kinds, reserved, first_rows, regress, others, binary, spans, lookups, indices)
