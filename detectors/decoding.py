"""Decoding: the values of many records at once, by strict decoders and without a look at each. What they refuse is left as None.

The loops run inside `map` and `zip`: what one decoding step costs in Python, several of them cost together here. An iterator that raised
goes on with the next record, so one odd record costs one exception and no second pass.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from operator import call, itemgetter
from typing import Any

from msgspec.structs import astuple

from ..schemas.layouts import (
    PACKED_FIELDS,
    Decode,
    Layout,
    label_columns,
    label_decoders,
    packed_decoder,
    packed_label_tuples,
    packed_tuples,
    prediction_columns,
)

JSON_START = 0x7B
PACKED_START, PACKED_STOP = 0x90, 0xA0
REFUSED = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)
Row = tuple[Any, ...]
columns_of_packed = itemgetter(0, 1, 2, 3, 4, 7, 9)
"""Of a packed prediction as a tuple, the columns that `prediction_columns` gives of a struct."""
FEATURES, NAMES = 5, 6
_first = itemgetter(0)


def first_byte(values: Sequence[bytes | None], limit: int) -> int:
    """Return the first byte of all values, -1 where it is not the same or a value is missing, empty or over `limit` bytes."""
    try:
        starts: set[int] = set(map(_first, values))  # type: ignore[arg-type]
        return starts.pop() if len(starts) == 1 and max(map(len, values)) <= limit else -1  # type: ignore[arg-type]
    except (TypeError, IndexError):
        return -1


def is_packed(first: int) -> bool:
    """Return True for the first byte of a msgpack array as SDKs write it."""
    return PACKED_START <= first < PACKED_STOP


def json_rows(values: Sequence[bytes], layouts: Sequence[Layout]) -> tuple[list[Any], list[bytes]]:
    """Return the columns and the float64 features of JSON predictions; `layouts` has one for all, or one for each."""
    rows: list[Any] = []
    features: list[bytes] = []
    stream: Iterator[tuple[Layout, Any]]
    if len(layouts) == 1:
        stream = zip(repeat(layouts[0]), map(layouts[0].decode_json, values), strict=False)
    else:
        # The layout comes first: where the decoder raises, both have moved on by one.
        stream = zip(layouts, map(call, [layout.decode_json for layout in layouts], values), strict=True)
    add, keep = rows.append, features.append
    while True:
        try:
            for layout, event in stream:
                try:
                    raw = layout.pack(*astuple(event.features))
                except struct.error:
                    raw = layout.align(astuple(event.features))
                # The event is let go at once: its memory is then still in the cache for the next one.
                add(prediction_columns(event))
                keep(raw)
            return rows, features
        except REFUSED:
            add(None)
            keep(b"")


def packed_rows(values: Sequence[bytes], layouts: Sequence[Layout], first: int) -> list[Any]:
    """Return packed predictions as tuples of all their fields; `layouts` has one for all, or one for each."""
    whole = first == PACKED_START + PACKED_FIELDS
    rows = _streamed(map(packed_tuples(), values) if whole else map(astuple, map(packed_decoder(), values)))
    for at, row in enumerate(rows) if None in rows or not fits(rows, layouts) else ():
        layout = layouts[0] if len(layouts) == 1 else layouts[at]
        if row is not None and (len(row[FEATURES]) != layout.size_bytes or (row[NAMES] and row[NAMES] != layout.joined_names)):
            rows[at] = None
    return rows


def label_rows(values: Sequence[bytes | None], limit: int) -> list[Any]:
    """Return model, prediction id, label and time of each label."""
    json, msgpack, packed = label_decoders()
    first = first_byte(values, limit)
    if first == JSON_START:
        return _streamed(map(label_columns, map(json, values)))  # type: ignore[arg-type]
    if first == PACKED_START + 4:
        return _streamed(map(packed_label_tuples(), values))  # type: ignore[arg-type]
    rows: list[Any] = []
    for value in values:
        row = None
        if value and len(value) <= limit:
            decode: Decode = json if value[0] == JSON_START else packed if is_packed(value[0]) else msgpack
            with suppress(*REFUSED):
                row = label_columns(decode(value))
        rows.append(row)
    return rows


def fits(rows: list[Row], layouts: Sequence[Layout]) -> bool:
    """Return whether the features of all rows have the number and the names of their layout."""
    sizes, names = list(map(len, map(itemgetter(FEATURES), rows))), list(map(itemgetter(NAMES), rows))
    if len(layouts) == 1:
        only = layouts[0]
        return sizes.count(only.size_bytes) == len(rows) and names.count(only.joined_names) + (
            names.count("") if only.joined_names else 0
        ) == len(rows)
    return sizes == [layout.size_bytes for layout in layouts] and names == [layout.joined_names for layout in layouts]


def _streamed(stream: Iterable[Any]) -> list[Any]:
    rows: list[Any] = []
    while True:
        try:
            rows.extend(stream)
            return rows
        except REFUSED:
            rows.append(None)
