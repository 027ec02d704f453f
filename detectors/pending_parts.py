"""Parts of the join buffer: rows as immutable pieces on a fixed grid, marks apart, so that a save costs what changed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from .columns import Ints
from .pending import COLUMNS, SUPERSEDED, NewRows, Pending

GRID_ROWS = 2_048
ROWS, MARKS = "p/", "m/"

_encode = msgspec.msgpack.Encoder().encode


class PendingParts:
    """What follows a join buffer and tells its parts.

    `p/<grid>.<first>`: rows of one grid cell from row `first` on; a cell that is full is one part, `p/<grid>.`, and its pieces go.
    `m/<grid>`: the marks of a cell. Parts of cells that have aged out are deleted.
    """

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self._written = pending.head
        self._lowest = pending.tail // GRID_ROWS
        self._pieces: list[str] = []
        self._marked: set[int] = set()

    def touch(self, rows: Ints) -> None:
        """Note rows whose marks changed."""
        self._marked.update(np.unique(rows // GRID_ROWS).tolist())

    def take(self) -> dict[str, bytes | None]:
        """Return the parts changed since the last call."""
        pending = self.pending
        parts: dict[str, bytes | None] = {}
        lowest = pending.tail // GRID_ROWS
        first = max(self._written, lowest * GRID_ROWS)
        if first > self._written:
            self._drop(parts)
        while first < pending.head:
            cell = first // GRID_ROWS
            stop = min((cell + 1) * GRID_ROWS, pending.head)
            if stop == (cell + 1) * GRID_ROWS:
                self._drop(parts)
                parts[f"{ROWS}{cell}."] = self._rows(max(cell * GRID_ROWS, pending.tail), stop)
            else:
                name = f"{ROWS}{cell}.{first}"
                self._pieces.append(name)
                parts[name] = self._rows(max(first, pending.tail), stop)
            first = stop
        for cell in range(self._lowest, lowest):
            parts[f"{ROWS}{cell}."] = None
            parts[f"{MARKS}{cell}"] = None
        for cell in sorted(self._marked):
            if cell >= lowest:
                parts[f"{MARKS}{cell}"] = self._marks(cell)
        self._written, self._lowest = pending.head, lowest
        self._marked.clear()
        return parts

    def whole(self) -> dict[str, bytes]:
        """Return parts that hold the whole buffer, without a note of it."""
        pending, parts = self.pending, {}
        for cell in range(pending.tail // GRID_ROWS, -(-pending.head // GRID_ROWS)):
            first, stop = max(cell * GRID_ROWS, pending.tail), min((cell + 1) * GRID_ROWS, pending.head)
            parts[f"{ROWS}{cell}."] = self._rows(first, stop)
            parts[f"{MARKS}{cell}"] = self._marks(cell)
        return parts

    def restore(self, parts: Mapping[str, bytes], tail: int, head: int) -> None:
        """Fill the buffer with the rows from `tail` to `head`; raises ValueError where some are missing."""
        pending = self.pending
        pending.resume(tail, head)
        missing = head - tail
        for name in sorted(name for name in parts if name.startswith(ROWS)):
            missing -= self._put(parts[name], tail)
            if not name.endswith("."):
                self._pieces.append(name)
        if missing:
            raise ValueError(f"rows of the join buffer must be whole, {missing} are missing")
        for name in (name for name in parts if name.startswith(MARKS)):
            first = int(name.removeprefix(MARKS)) * GRID_ROWS
            marks = np.frombuffer(parts[name], np.uint8)
            rows = np.arange(max(first, tail), min(first + len(marks), head))
            if len(rows):
                pending.mark(rows, marks[rows - first])
        pending.reindex()
        self._written, self._lowest = head, tail // GRID_ROWS

    def _drop(self, parts: dict[str, bytes | None]) -> None:
        parts.update(dict.fromkeys(self._pieces))
        self._pieces = []

    def _rows(self, first: int, stop: int) -> bytes:
        ids, scores, columns = self.pending.packed(first, stop)
        return _encode((first, stop, self.pending.width, ids, scores, columns))

    def _marks(self, cell: int) -> bytes:
        rows = np.arange(cell * GRID_ROWS, min((cell + 1) * GRID_ROWS, self.pending.head))
        marks = self.pending.marks(rows)
        marks[rows < self.pending.tail] = SUPERSEDED
        return marks.tobytes()

    def _put(self, data: bytes, tail: int) -> int:
        first, stop, width, ids, scores, columns = msgspec.msgpack.decode(data)
        skip = max(0, tail - first)
        rows = np.arange(first + skip, stop)
        if not len(rows):
            return 0
        found = {name: np.frombuffer(column, kind)[skip:] for (name, kind), column in zip(COLUMNS.items(), columns, strict=True)}
        table = np.frombuffer(scores, np.float32).reshape(stop - first, width)[skip:]
        self.pending.put(rows, NewRows(np.frombuffer(ids, np.uint64).reshape(-1, 2)[skip:], found, table))
        return len(rows)
