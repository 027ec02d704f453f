"""Alike: packed records that differ in nothing but their values, decoded as one array of bytes.

A producer writes in one form: ids of one length, numbers of one kind. Where every record has the length of the first, and its bytes
wherever no value lies, what the strict decoder says of the first holds for all; what it would ask of the values is asked by column.
All else is `Unlike` and left to `decoding`, which must give the same of what is decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.layouts import PACKED_FIELDS, Decode, Layout, packed_label_tuples, packed_tuples
from .columns import Floats
from .decoding import PACKED_START, REFUSED, fits
from .pieces import Keys

# Below this the calls for all cost more than those for each.
LEAST_ROWS = 32
# The records are copied once more; beyond this they are decoded one by one.
MOST_BYTES = 64 * 1024 * 1024
LABEL_FIELDS = 4
# From here on comparing words, which copies nothing, is faster than comparing bytes.
LONG_WORDS = 8
MOST_SCORES = 15
NIL, FALSE, TRUE, FLOAT64 = 0xC0, 0xC2, 0xC3, 0xCB
LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length behind the first byte of bytes and texts; texts of up to 31 bytes have it in the first byte."""
NUMBERS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
Columns = tuple[Any, ...]


class Unlike(Exception):
    """Records that are not all of one form, or of a form that is not read here."""


def alike_predictions(values: Sequence[bytes], keys: Keys, layout: Layout, limit: int) -> tuple[Columns, Floats]:
    """Return the columns of packed predictions, as `prediction_columns` has them, and their features; raises Unlike.

    The models are those that the keys name, so their column is None; a column of numbers may be an array.
    """
    rows = _Rows(values, limit, PACKED_START + PACKED_FIELDS, packed_tuples())
    if not fits([rows.told], [layout]):
        raise Unlike
    rows.models(keys)
    rows.skip()
    idents, seconds, outputs, features = rows.texts(), rows.floats(), rows.scalars(), rows.packed(layout.width)
    rows.skip()
    scores = rows.many_floats()
    rows.skip()
    latencies = rows.floats()
    rows.check()
    return (None, [rows.told[1]] * rows.count, idents, seconds, outputs, scores, latencies), features


def alike_labels(values: Sequence[bytes | None], keys: Keys, limit: int) -> Columns:
    """Return the columns of packed labels, as `label_columns` has them, but None for the models: the keys name them; raises Unlike."""
    rows = _Rows(values, limit, PACKED_START + LABEL_FIELDS, packed_label_tuples())
    rows.models(keys)
    idents, labels, seconds = rows.texts(), rows.scalars(), rows.floats()
    rows.check()
    return None, idents, labels, seconds


class _Rows:
    """A walk over the fields of the first record and read each of them in all records; nothing read is true before `check`."""

    def __init__(self, values: Sequence[bytes | None], limit: int, head: int, decode: Decode) -> None:
        first, self.count = values[0], len(values)
        if self.count < LEAST_ROWS or not first or first[0] != head or len(first) > limit or len(first) * self.count > MOST_BYTES:
            raise Unlike
        self.first, self.size = first, len(first)
        try:
            # A missing value has no length.
            if list(map(len, values)).count(self.size) != self.count:  # type: ignore[arg-type]
                raise Unlike
            self.told: tuple[Any, ...] = decode(first)
        except REFUSED:
            raise Unlike from None
        self._joined = b"".join(values)  # type: ignore[arg-type]
        self._at = 1
        self._begin = 0
        self._fixed: list[tuple[int, int]] = []

    def check(self) -> None:
        """Compare with the first record all that no column was read from."""
        for begin, stop in (*self._fixed, (self._begin, self.size)):
            start, whole = begin, (stop - begin) // 8
            if whole >= LONG_WORDS:
                words = np.ndarray((self.count, whole), np.uint64, self._joined, start, (self.size, 8))
                if (words != words[0]).any():
                    raise Unlike
                start += 8 * whole
            if start < stop and self._bytes(start, stop).tobytes() != self.first[start:stop] * self.count:
                raise Unlike

    def skip(self) -> None:
        """Pass a field that is the same in all records."""
        self._at = self._body()[1]

    def models(self, keys: Keys) -> None:
        """Pass a text that is the record's key."""
        start, stop = self._body()
        if len(keys.different) == 1:
            # `check` sees to it that the names are one as well.
            if self.first[start:stop] != keys.each[0]:
                raise Unlike
            self._at = stop
            return
        self._vary(start, stop)
        same_size = {len(key) for key in keys.different} == {stop - start}
        if not same_size or self._bytes(start, stop).tobytes() != b"".join(keys.each):
            raise Unlike

    def texts(self) -> list[bytes]:
        """Return texts of one length, all ASCII, where bytes are characters and no sequence of them is wrong."""
        start, stop = self._body()
        self._vary(start, stop)
        column = self._bytes(start, stop)
        if not column.tobytes().isascii():
            raise Unlike
        found: list[bytes] = column.tolist()
        return found

    def floats(self) -> Floats | list[None]:
        """Return numbers, or None for each where the first has none."""
        if self.first[self._at] == NIL:
            self._at += 1
            return [None] * self.count
        return self._floats()

    def many_floats(self) -> Floats | list[None]:
        """Return lists of numbers as (n, width), or None for each where the first has none."""
        width = self.first[self._at] - PACKED_START
        if width == NIL - PACKED_START:
            self._at += 1
            return [None] * self.count
        if not 1 <= width <= MOST_SCORES:
            raise Unlike
        self._at += 1
        return np.column_stack([self._floats() for _ in range(width)])

    def scalars(self) -> NDArray[Any]:
        """Return small whole numbers, truth values or fractions."""
        start = self._at
        head = self.first[start]
        if head == FLOAT64:
            return self._floats()
        if head >= 0x80 and head not in (FALSE, TRUE):
            raise Unlike
        self._vary(start, start + 1)
        column = self._view(np.uint8, start)
        if head < 0x80:
            if column.max() >= 0x80:
                raise Unlike
            return column
        if column.min() < FALSE or column.max() > TRUE:
            raise Unlike
        truths: NDArray[Any] = column == TRUE
        return truths

    def packed(self, width: int) -> Floats:
        """Return float32 numbers of `width` columns."""
        start, stop = self._body()
        self._vary(start, stop)
        # A signalling NaN would warn; what is not finite is sorted out by column.
        with np.errstate(invalid="ignore"):
            found: Floats = self._view(np.dtype("<f4"), start, width).astype(np.float64)
        return found

    def _floats(self) -> Floats:
        if self.first[self._at] != FLOAT64:
            raise Unlike
        start = self._at + 1
        self._vary(start, start + 8)
        found: Floats = self._view(np.dtype(">f8"), start).astype(np.float64)
        return found

    def _body(self) -> tuple[int, int]:
        """Return where the content of the field at hand starts and stops."""
        at, head = self._at, self.first[self._at]
        if 0xA0 <= head < NIL:
            return at + 1, at + 1 + head - 0xA0
        if head in NUMBERS:
            return at + 1, at + 1 + NUMBERS[head]
        if head in LENGTHS:
            start = at + 1 + LENGTHS[head]
            return start, start + int.from_bytes(self.first[at + 1 : start], "big")
        return at, at + 1

    def _vary(self, start: int, stop: int) -> None:
        """Let a stretch differ from record to record."""
        self._fixed.append((self._begin, start))
        self._begin = self._at = stop

    def _bytes(self, start: int, stop: int) -> NDArray[np.void]:
        return np.ndarray((self.count,), np.dtype(f"V{stop - start}"), self._joined, start, (self.size,))

    def _view(self, kind: Any, start: int, width: int | None = None) -> NDArray[Any]:
        if width is None:
            return np.ndarray((self.count,), kind, self._joined, start, (self.size,))
        return np.ndarray((self.count, width), kind, self._joined, start, (self.size, np.dtype(kind).itemsize))
