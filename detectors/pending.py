"""The join buffer: predictions in a ring of fixed-size columns, found by id through an open-addressing table, all numpy.

A row is numbered for ever; the ring keeps the rows from `tail` to `head`. A joined row stays, marked with a fingerprint of its label,
so that a second prediction or label is recognised, until it ages out. Where several versions of a model answered one request, its id
finds the newest row, and each of these rows says how far `back` the one before it lies.
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
# Searches that go on beyond this number are ended one by one.
FEW = 24
WIDEST = 64
COLUMNS: dict[str, Any] = {
    "order": np.int64,
    "offset": np.int64,
    "ts": np.float64,
    "time_ms": np.int64,
    "model": np.int32,
    "version": np.int32,
    "output": np.float64,
    "back": np.uint32,
}
ROW_BYTES = 16 + 1 + sum(np.dtype(kind).itemsize for kind in COLUMNS.values()) + 4 * WIDEST + 16
"""The most that a row takes: id, mark, columns, scores, and its share of the table."""


@dataclass(slots=True)
class NewRows:
    """Rows to append, in merged order; `columns` named as COLUMNS, `scores` float32 (n, width), `ids` uint64 (n, 2)."""

    ids: Ids
    columns: dict[str, NDArray[Any]]
    scores: NDArray[np.float32]


class Pending:
    """The join buffer: the predictions of a partition that wait for a label, or had one and are remembered."""

    def __init__(self) -> None:
        self.head = 0
        self.tail = 0
        self.width = 0
        self.newest_sibling = -1
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
        slots = (ids[:, 0] & np.uint64(mask)).view(np.int64)
        entries = self._table.take(slots)
        active = entries.nonzero()[0]
        low, slots, entries = ids[:, 0].take(active), slots.take(active), entries.take(active)
        while len(active) > FEW:
            rows = entries + np.int64(self._base - 1)
            at = (rows & self._mask) << 1
            other = held.take(at) != low
            hit = (~other).nonzero()[0]
            if len(hit):
                mine, whose = rows.take(hit), active.take(hit)
                sure = (held.take(at.take(hit) + 1) == ids[:, 1].take(whose)) & (mine >= self.tail)
                found[whose[sure]] = mine[sure]
                other[hit[~sure]] = True
            left = other.nonzero()[0]
            slots = (slots.take(left) + 1) & mask
            entries = self._table.take(slots)
            on = entries.nonzero()[0]
            left = left.take(on)
            active, low, slots, entries = active.take(left), low.take(left), slots.take(on), entries.take(on)
        for one, slot in zip(active.tolist(), slots.tolist(), strict=True):
            found[one] = self._find_one(ids[one].tolist(), slot)
        return found

    def _find_one(self, ident: list[int], slot: int) -> int:
        """Return the row of an id, searched from a place of the table on."""
        table, mask = self._table, len(self._table) - 1
        while (entry := table.item(slot)) != 0:
            row = entry + self._base - 1
            if row >= self.tail and self._ids[row & self._mask].tolist() == ident:
                return row
            slot = (slot + 1) & mask
        return -1

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

    def family(self, row: int) -> list[int]:
        """Return a row and those of other versions before it that answered the same request, newest first."""
        found = [row]
        while (back := int(self._columns["back"][row & self._mask])) and row - back >= self.tail:
            row -= back
            found.append(row)
        return found

    def hide(self, rows: Ints) -> None:
        """Make rows findable through a newer one of their id alone."""
        self._ids[rows & self._mask] = 0

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
        self._note_siblings(new.columns["back"], self.head - count)
        return np.arange(self.head - count, self.head)

    def index(self, rows: Ints) -> None:
        """Make rows findable by their ids, which must be distinct and not held yet."""
        if self._used + len(rows) > MAX_LOAD * len(self._table) or self.head - self._base > 2**32 - 2:
            self._rebuild()
        else:
            self._insert(rows)

    def _note_siblings(self, back: NDArray[Any], first: int) -> Ints:
        """Return which rows from `first` on have an older one of their id, and remember the newest."""
        found = back.nonzero()[0]
        if len(found):
            self.newest_sibling = max(self.newest_sibling, first + int(found[-1]))
        return found + first

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

    def packed(self, first: int, stop: int) -> tuple[bytes, bytes, list[bytes]]:
        """Return ids, scores and columns of the rows [first, stop) as bytes."""
        mask = self._mask
        parts = [slice(begin & mask, ((end - 1) & mask) + 1) for begin, end in self._stretches(first, stop)]
        arrays: list[NDArray[Any]] = [self._ids, self._scores, *self._columns.values()]
        ids, scores, *columns = [b"".join([array[part].tobytes() for part in parts]) for array in arrays]
        return ids, scores, columns

    def _stretches(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Return the rows [first, stop) as stretches that lie in a row in the ring, at most two."""
        turn = (first | self._mask) + 1
        parts = [(first, min(stop, turn)), (turn, stop)]
        return [(begin, end) for begin, end in parts if begin < end]

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
        rows = np.arange(self.tail, self.head)
        newer = self._note_siblings(self.column("back", rows), self.tail)
        older = newer - self.column("back", newer)
        self.hide(older[older >= self.tail])
        self._rebuild()

    def _reserve(self, count: int) -> None:
        capacity = self._mask + 1
        if count <= capacity:
            return
        while capacity < count:
            capacity *= 2
        parts = self._stretches(self.tail, self.head)
        self._ids = _moved(self._ids, parts, capacity)
        self._marks = _moved(self._marks, parts, capacity)
        self._scores = _moved(self._scores, parts, capacity)
        for name in self._columns:
            self._columns[name] = _moved(self._columns[name], parts, capacity)
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
            # What is not to be found has no id.
            self._insert(part[self.ids(part).any(axis=1)])

    def _insert(self, rows: Ints) -> None:
        mask = len(self._table) - 1
        entries = (rows - (self._base - 1)).astype(np.uint32)
        slots = (self._ids.ravel().take((rows & self._mask) << 1) & np.uint64(mask)).view(np.int64)
        oldest = self.tail - (self._base - 1)
        while len(entries) > FEW:
            there = self._table.take(slots)
            free = (there < oldest).nonzero()[0]
            mine, places = entries.take(free), slots.take(free)
            self._table[places] = mine
            won = self._table.take(places) == mine
            self._used += int(np.count_nonzero(won & (there.take(free) == 0)))
            taken = np.ones(len(entries), np.bool_)
            taken[free[won]] = False
            left = taken.nonzero()[0]
            entries, slots = entries.take(left), (slots.take(left) + 1) & mask
        table = self._table
        for entry, slot in zip(entries.tolist(), slots.tolist(), strict=True):
            at = slot
            while (old := table.item(at)) >= oldest:
                at = (at + 1) & mask
            self._used += old == 0
            table[at] = entry


def _moved(array: NDArray[Any], parts: list[tuple[int, int]], capacity: int) -> NDArray[Any]:
    moved = np.zeros((capacity, *array.shape[1:]), array.dtype)
    mask = len(array) - 1
    for first, stop in parts:
        # Whoever does not cross the end of the smaller ring does not cross that of the larger one.
        old, new = first & mask, first & (capacity - 1)
        moved[new : new + stop - first] = array[old : old + stop - first]
    return moved


def fingerprints(values: Floats) -> Marks:
    """Return a fingerprint of eight bits of each number, never WAITING or SUPERSEDED; 0.0 and -0.0 are one number."""
    bits = (values + 0.0).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    return ((bits >> np.uint64(40)) % np.uint64(256 - FIRST_FINGERPRINT)).astype(np.uint8) + np.uint8(FIRST_FINGERPRINT)
