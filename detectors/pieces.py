"""Pieces: consecutive records of one topic, and the columns of predictions and labels that intake makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..schemas.layouts import Layout
from ..schemas.records import Slice
from .columns import Floats, Ints
from .pending import Ids


class Keys(NamedTuple):
    """The keys of some records, and which there are."""

    each: list[Any]
    different: set[Any]

    @classmethod
    def of(cls, each: list[Any]) -> Keys:
        """Return the keys of at least one record; most batches have one key, which a count tells without a hash of each."""
        return cls(each, {each[0]} if each.count(each[0]) == len(each) else set(each))


@dataclass(slots=True)
class Piece:
    """Consecutive records of one topic, from `start` to `stop` of a slice, with their places in the merged log."""

    topic: str
    source: Slice
    start: int
    stop: int
    order: Ints
    time_ms: Ints
    stamps_ms: Ints
    _keys: Keys | None = field(default=None, init=False)

    def keys(self, kept: Ints | None = None) -> Keys:
        """Return the keys of the records, of those `kept` alone where it is given."""
        if self._keys is None:
            self._keys = Keys.of(self.source.keys[self.start : self.stop])
        if kept is None:
            return self._keys
        return Keys.of([self._keys.each[at] for at in kept.tolist()])

    def cut(self, start: int, stop: int) -> Piece:
        """Return the records from `start` to `stop` of the slice."""
        part = slice(start - self.start, stop - self.start)
        return Piece(self.topic, self.source, start, stop, self.order[part], self.time_ms[part], self.stamps_ms[part])

    def columns(self, kept: Ints | None) -> tuple[Ints, Ints, Ints, Ints]:
        """Return order, stream time, time stamp and offset of the records, of those `kept` alone where it is given."""
        found, count = self.source.offsets, self.stop - self.start
        first, last = found[self.start], found[self.stop - 1]
        # Offsets rise: where the last is as far from the first as the rows are many, none is left out.
        gapless = last - first == count - 1
        offsets = np.arange(first, last + 1) if gapless else np.fromiter(found[self.start : self.stop], np.int64, count)
        if kept is None:
            return self.order, self.time_ms, self.stamps_ms, offsets
        return self.order[kept], self.time_ms[kept], self.stamps_ms[kept], offsets[kept]


@dataclass(slots=True)
class Predictions:
    """Sound predictions in merged order. `groups`: layout, rows, values. `scores`: NaN where missing, at most WIDEST columns.

    `types` of the outputs, perhaps of more than are left; `numbers`: the outputs as numbers, None where some are texts.
    """

    order: Ints
    time_ms: Ints
    slot: Ints
    version: Ints
    offset: Ints
    ids: Ids
    ts: Floats
    confidence: Floats
    latency_ms: Floats
    scores: Floats
    outputs: list[Any]
    types: set[type]
    numbers: Floats | None
    groups: list[tuple[Layout, Ints, Floats]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.order)

    def part(self, start: int, stop: int) -> Predictions:
        """Return the rows from `start` to `stop`."""
        return self if stop - start == len(self) else self.take(_between(start, stop, len(self)))

    def take(self, keep: NDArray[np.bool_]) -> Predictions:
        """Return the rows where `keep` is True."""
        places = np.cumsum(keep) - 1
        groups = []
        for layout, rows, values in self.groups:
            kept = keep[rows]
            if kept.any():
                groups.append((layout, places[rows[kept]], values[kept]))
        return Predictions(
            order=self.order[keep],
            time_ms=self.time_ms[keep],
            slot=self.slot[keep],
            version=self.version[keep],
            offset=self.offset[keep],
            ids=self.ids[keep],
            ts=self.ts[keep],
            confidence=self.confidence[keep],
            latency_ms=self.latency_ms[keep],
            scores=self.scores[keep],
            outputs=[self.outputs[at] for at in np.flatnonzero(keep).tolist()],
            types=self.types,
            numbers=None if self.numbers is None else self.numbers[keep],
            groups=groups,
        )


@dataclass(slots=True)
class Labels:
    """Sound labels in merged order. `at`: index in the slice. `slot`: -1 for a model not known yet.

    `types` and `numbers` of the values, as of the outputs of Predictions.
    """

    order: Ints
    time_ms: Ints
    slot: Ints
    offset: Ints
    ids: Ids
    at: Ints
    values: list[Any]
    types: set[type]
    numbers: Floats | None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.order)

    def part(self, start: int, stop: int) -> Labels:
        """Return the rows from `start` to `stop`."""
        return self if stop - start == len(self) else self.take(_between(start, stop, len(self)))

    def take(self, keep: NDArray[np.bool_]) -> Labels:
        """Return the rows where `keep` is True."""
        return Labels(
            order=self.order[keep],
            time_ms=self.time_ms[keep],
            slot=self.slot[keep],
            offset=self.offset[keep],
            ids=self.ids[keep],
            at=self.at[keep],
            values=[self.values[at] for at in np.flatnonzero(keep).tolist()],
            types=self.types,
            numbers=None if self.numbers is None else self.numbers[keep],
        )


def no_predictions() -> Predictions:
    """Return no rows."""
    ints, floats = np.zeros(0, np.int64), np.zeros(0)
    return Predictions(
        ints, ints, ints, ints, ints, np.zeros((0, 2), np.uint64), floats, floats, floats, np.zeros((0, 0)), [], set(), floats, []
    )


def no_labels() -> Labels:
    """Return no rows."""
    ints = np.zeros(0, np.int64)
    return Labels(ints, ints, ints, ints, np.zeros((0, 2), np.uint64), ints, [], set(), np.zeros(0))


def joined_predictions(parts: list[Predictions]) -> Predictions:
    """Return the rows of consecutive parts as one."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else no_predictions()
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    width = max(part.scores.shape[1] for part in parts)
    numbers = [part.numbers for part in parts if part.numbers is not None]
    groups = [
        (layout, rows + start, values) for part, start in zip(parts, starts, strict=False) for layout, rows, values in part.groups
    ]
    names = ("order", "time_ms", "slot", "version", "offset", "ids", "ts", "confidence", "latency_ms")
    return Predictions(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        scores=np.concatenate([_widened(part.scores, width) for part in parts]),
        outputs=[value for part in parts for value in part.outputs],
        types=set().union(*(part.types for part in parts)),
        numbers=np.concatenate(numbers) if len(numbers) == len(parts) else None,
        groups=groups,
    )


def joined_labels(parts: list[Labels]) -> Labels:
    """Return the rows of consecutive parts as one."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else no_labels()
    numbers = [part.numbers for part in parts if part.numbers is not None]
    return Labels(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("order", "time_ms", "slot", "offset", "ids", "at")
        },
        values=[value for part in parts for value in part.values],
        types=set().union(*(part.types for part in parts)),
        numbers=np.concatenate(numbers) if len(numbers) == len(parts) else None,
    )


def _between(start: int, stop: int, count: int) -> NDArray[np.bool_]:
    places = np.arange(count)
    return (places >= start) & (places < stop)


def _widened(scores: Floats, width: int) -> Floats:
    wide = np.full((len(scores), width), np.nan)
    wide[:, : scores.shape[1]] = scores
    return wide
