"""Cuts of a batch: its first records in merged order, and the rest, so that one record can be told from the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..schemas.records import Batch, Headers, Slice
from ..schemas.topics import DATA_PLANE_INPUTS


def halves(batch: Batch, places: Mapping[str, NDArray[np.int64]]) -> tuple[Batch, Batch]:
    """Return the first half of a batch in merged order and the rest; `places` says by topic where each record comes."""
    middle = len(batch) // 2
    stops = {kind: int(np.searchsorted(places[kind], middle)) for kind in DATA_PLANE_INPUTS}
    first = {kind: part(getattr(batch, kind), 0, stop) for kind, stop in stops.items()}
    rest = {kind: part(getattr(batch, kind), stop, len(getattr(batch, kind))) for kind, stop in stops.items()}
    return Batch(**first), Batch(**rest)


def part(whole: Slice, start: int, stop: int) -> Slice:
    """Return the records from `start` to `stop` of a slice."""

    def headers(index: int) -> Headers:
        return whole.headers(start + index)

    return Slice(
        values=whole.values[start:stop],
        keys=whole.keys[start:stop],
        offsets=whole.offsets[start:stop],
        timestamps_ms=whole.timestamps_ms[start:stop],
        headers=headers,
    )


def tombstone(batch: Batch) -> Batch:
    """Return a batch of one record with nothing in its place, of the same time."""
    emptied = {}
    for kind in DATA_PLANE_INPUTS:
        source = getattr(batch, kind)
        count = len(source)
        emptied[kind] = Slice([None] * count, [None] * count, list(source.offsets), list(source.timestamps_ms))
    return Batch(**emptied)
