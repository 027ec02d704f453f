"""The join buffer: predictions in a ring of fixed-size columns, found by id through an open-addressing table, all numpy.

A row is numbered for ever; the ring keeps the rows from `tail` to `head`. A joined row stays, marked with a fingerprint of its label,
so that a second prediction or label is recognised, until it ages out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Floats, Ints

Ids = NDArray[np.uint64]
Marks = NDArray[np.uint8]
WAITING = 0
SUPERSEDED = 1
FIRST_FINGERPRINT = 2
START_ROWS = 1_024
REBUILD_ROWS = 65_536
# A sparse table costs up to 16 bytes a row, and most searches end at the first place: every further step costs a dozen numpy calls.
MAX_LOAD = 0.5
START_LOAD = 0.25
WIDEST = 64
COLUMNS: dict[str, Any] = {
    "order": np.int64,
    "offset": np.int64,
    "ts": np.float64,
    "time_ms": np.int64,
    "model": np.int32,
    "version": np.int32,
    "output": np.float64,
}


@dataclass(slots=True)
class NewRows:
    """Hold rows to append, in merged order; `columns` named as COLUMNS, `scores` float32 (n, width), `ids` uint64 (n, 2)."""

    ids: Ids
    columns: dict[str, NDArray[Any]]
    scores: NDArray[np.float32]


class Pending:
    """Hold the predictions of a partition that wait for a label, or had one and are remembered."""

    def __init__(self) -> None:
        self.head = 0
        self.tail = 0
        self.width = 0
        self._mask = START_ROWS - 1
        self._ids: Ids = np.zeros((START_ROWS, 2), np.uint64)
        self._columns = {name: np.zeros(START_ROWS, kind) for name, kind in COLUMNS.items()}
        self._marks: Marks = np.zeros(START_ROWS, np.uint8)
        self._scores: NDArray[np.float32] = np.zeros((START_ROWS, 0), np.float32)
        self._table: NDArray[np.uint32] = np.zeros(4 * START_ROWS, np.uint32)
        self._base = 0
        self._used = 0

    def __len__(self) -> int:
        """Return the number of rows held, joined ones included."""
        return self.head - self.tail

    @property
    def waiting(self) -> int:
        """Return the number of rows that wait for a label."""
        at = np.arange(self.tail, self.head) & self._mask
        return int(np.count_nonzero(self._marks[at] == WAITING))

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all columns and the table."""
        arrays: list[NDArray[Any]] = [self._ids, self._marks, self._scores, self._table, *self._columns.values()]
        return sum(array.nbytes for array in arrays)

    def find(self, ids: Ids) -> Ints:
        """Return the row of each id, -1 where it is not held."""
        found = np.full(len(ids), -1, np.int64)
        if self.head == self.tail or not len(ids):
            return found
        mask, held = len(self._table) - 1, self._ids.ravel()
        low, high = ids[:, 0], ids[:, 1]
        slots = (low & np.uint64(mask)).view(np.int64)
        entries = self._table.take(slots)
        active = entries.nonzero()[0]
        entries = entries[active]
        while len(active):
            rows = entries + np.int64(self._base - 1)
            at = (rows & self._mask) << 1
            hit = (held.take(at) == low.take(active)) & (held.take(at + 1) == high.take(active)) & (rows >= self.tail)
            found[active[hit]] = rows[hit]
            active = active[~hit]
            slots[active] = following = (slots.take(active) + 1) & mask
            entries = self._table.take(following)
            on = entries.nonzero()[0]
            active, entries = active[on], entries[on]
        return found

    def column(self, name: str, rows: Ints) -> NDArray[Any]:
        """Return one column at `rows`."""
        return self._columns[name].take(rows & self._mask)

    def scores(self, rows: Ints) -> NDArray[np.float32]:
        """Return the scores at `rows`, float32 (n, width), NaN where there are none."""
        return self._scores.take(rows & self._mask, axis=0)

    def ids(self, rows: Ints) -> Ids:
        """Return the ids at `rows`."""
        return self._ids.take(rows & self._mask, axis=0)

    def marks(self, rows: Ints) -> Marks:
        """Return WAITING, SUPERSEDED, or the fingerprint of the label."""
        return self._marks.take(rows & self._mask)

    def mark(self, rows: Ints, marks: Marks | int) -> None:
        """Set the marks at `rows`; a superseded row is no longer found."""
        at = rows & self._mask
        self._marks[at] = marks
        if isinstance(marks, int) and marks == SUPERSEDED:
            self._ids[at] = 0

    def append(self, new: NewRows) -> Ints:
        """Add rows at the head and return their numbers. Their ids are not found before `index`."""
        count = len(new.ids)
        self.widen(new.scores.shape[1])
        self._reserve(len(self) + count)
        first, width = self.head & self._mask, new.scores.shape[1]
        fits = min(count, self._mask + 1 - first)
        for at, source in ((slice(first, first + fits), slice(0, fits)), (slice(0, count - fits), slice(fits, count))):
            if source.start == source.stop:
                continue
            self._ids[at] = new.ids[source]
            self._marks[at] = WAITING
            for name, column in self._columns.items():
                column[at] = new.columns[name][source]
            self._scores[at, width:] = np.nan
            self._scores[at, :width] = new.scores[source]
        self.head += count
        return np.arange(self.head - count, self.head)

    def index(self, rows: Ints) -> None:
        """Make rows findable by their ids, which must be distinct and not held yet."""
        if self._used + len(rows) > MAX_LOAD * len(self._table) or self.head - self._base > 2**32 - 2:
            self._rebuild()
        else:
            self._insert(rows)

    def age(self, oldest_ms: int, max_rows: int) -> None:
        """Forget rows older than `oldest_ms`, and all but the newest `max_rows`."""
        step = START_ROWS
        tail = max(self.tail, self.head - max_rows)
        while tail < self.head:
            rows = np.arange(tail, min(tail + step, self.head))
            young = self.column("time_ms", rows) >= oldest_ms
            if young.any():
                tail += int(np.argmax(young))
                break
            tail += len(rows)
        self.tail = tail

    def widen(self, width: int) -> None:
        """Make room for `width` scores a row."""
        if width > self.width:
            wider = np.full((self._mask + 1, width), np.nan, np.float32)
            wider[:, : self.width] = self._scores
            self._scores, self.width = wider, width

    def resume(self, tail: int, head: int) -> None:
        """Start an empty buffer whose rows from `tail` to `head` are then filled by `put`, and found after `reindex`."""
        self.tail = self._base = tail
        self.head = tail
        self._reserve(head - tail)
        self.head = head

    def put(self, rows: Ints, new: NewRows) -> None:
        """Fill rows of a buffer that is being restored."""
        self.widen(new.scores.shape[1])
        at = rows & self._mask
        self._ids[at] = new.ids
        for name, column in self._columns.items():
            column[at] = new.columns[name]
        self._scores[at] = np.nan
        self._scores[at, : new.scores.shape[1]] = new.scores

    def reindex(self) -> None:
        """Make all rows findable."""
        self._ids[np.flatnonzero(self._marks == SUPERSEDED)] = 0
        self._rebuild()

    def _reserve(self, count: int) -> None:
        capacity = self._mask + 1
        if count <= capacity:
            return
        while capacity < count:
            capacity *= 2
        rows = np.arange(self.tail, self.head)
        old, new = rows & self._mask, rows & (capacity - 1)
        self._ids = _moved(self._ids, old, new, capacity)
        self._marks = _moved(self._marks, old, new, capacity)
        self._scores = _moved(self._scores, old, new, capacity)
        for name in self._columns:
            self._columns[name] = _moved(self._columns[name], old, new, capacity)
        self._mask = capacity - 1

    def _rebuild(self) -> None:
        """Fill a new table from the ring."""
        capacity = len(self._table)
        while len(self) > START_LOAD * capacity:
            capacity *= 2
        while capacity > 4 * START_ROWS and len(self) < START_LOAD * capacity / 4:
            capacity //= 2
        self._table = np.zeros(capacity, np.uint32)
        self._base, self._used = self.tail, 0
        for first in range(self.tail, self.head, REBUILD_ROWS):
            part = np.arange(first, min(first + REBUILD_ROWS, self.head))
            self._insert(part[self.marks(part) != SUPERSEDED])

    def _insert(self, rows: Ints) -> None:
        mask = len(self._table) - 1
        entries = (rows - (self._base - 1)).astype(np.uint32)
        slots = (self._ids.ravel().take((rows & self._mask) << 1) & np.uint64(mask)).view(np.int64)
        oldest = self.tail - (self._base - 1)
        while len(entries):
            there = self._table.take(slots)
            free = (there < oldest).nonzero()[0]
            mine, places = entries[free], slots[free]
            self._table[places] = mine
            won = self._table.take(places) == mine
            self._used += int(np.count_nonzero(won & (there[free] == 0)))
            left = np.ones(len(entries), np.bool_)
            left[free[won]] = False
            entries, slots = entries[left], (slots[left] + 1) & mask


def _moved(array: NDArray[Any], old: Ints, new: Ints, capacity: int) -> NDArray[Any]:
    moved = np.zeros((capacity, *array.shape[1:]), array.dtype)
    for first in range(0, len(old), REBUILD_ROWS):
        part = slice(first, first + REBUILD_ROWS)
        moved[new[part]] = array[old[part]]
    return moved


def fingerprints(values: Floats) -> Marks:
    """Return a fingerprint of eight bits of each number, never WAITING or SUPERSEDED; 0.0 and -0.0 are one number."""
    bits = (values + 0.0).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    return ((bits >> np.uint64(40)) % np.uint64(256 - FIRST_FINGERPRINT)).astype(np.uint8) + np.uint8(FIRST_FINGERPRINT)
