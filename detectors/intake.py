"""Intake: the records of a batch, decoded, checked by column, and laid out as columns of predictions and labels."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, cast

import numpy as np
import xxhash
from msgspec.structs import astuple

from ..schemas.layouts import Decode, Layout, label_decoders, packed_decoder, prediction_columns
from .admission import FLOAT32_MAX, MAX_LABEL_BYTES, YEAR_2000_S
from .checked_columns import (
    Wrong,
    columns_of_scores,
    groups_of,
    hashed,
    numbers,
    strange_labels,
    strange_names,
    strange_outputs,
    times,
)
from .columns import Floats, Ints
from .inspection import Inspector, Odd, no_nan
from .model_table import ModelTable
from .pending import Ids
from .pieces import Labels, Piece, Predictions, no_labels, no_predictions

REFUSED = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError, Odd)


class Reader(NamedTuple):
    """Hold what the decoding loop needs for the records of one key."""

    json: Decode
    msgpack: Decode
    layout: Layout
    model: str
    slot: int


class Intake:
    """Turn records into columns; what is odd goes to the inspector, which admits or refuses it."""

    def __init__(self, table: ModelTable, inspector: Inspector, max_value_bytes: int) -> None:
        self.table = table
        self.inspector = inspector
        self.max_value_bytes = max_value_bytes
        self._readers: dict[bytes, Reader] = {}
        self._names: dict[bytes, str] = {}

    def forget(self) -> None:
        """Read the layouts of the models anew."""
        self._readers.clear()
        for slot, model in enumerate(self.table.models):
            if model.layout is not None:
                self._know(slot)

    def predictions(self, piece: Piece) -> Predictions:
        """Return the sound predictions of a piece; the others are with the inspector's refusals."""
        rows, features, refused = self._decode(piece)
        kept = np.arange(piece.stop - piece.start)
        if refused:
            kept = np.delete(kept, np.array(refused) - piece.start)
        if not rows:
            return no_predictions()
        found, names = self._columns(piece, rows, features, kept)
        suspects = self._suspects(found[0], found[1:], names, piece)
        return self._judged(found[0], suspects, piece)

    def labels(self, piece: Piece) -> Labels:
        """Return the sound labels of a piece; the others are with the inspector's refusals."""
        json, msgpack, packed = label_decoders()
        values: list[Any] = piece.source.values
        limit, events = min(self.max_value_bytes, MAX_LABEL_BYTES), []
        for at in range(piece.start, piece.stop):
            value = values[at]
            try:
                first = value[0]
                decode = json if first == 0x7B else packed if 0x90 <= first <= 0x9F else msgpack
                events.append(decode(value) if len(value) <= limit else None)
            except REFUSED:
                events.append(None)
        return self._label_columns(piece, events)

    def _know(self, slot: int) -> Reader:
        model = self.table.models[slot]
        assert model.layout is not None
        reader = Reader(model.layout.decode_json, model.layout.decode_msgpack, model.layout, model.name, slot)
        self._readers[model.name.encode()] = reader
        self._names[model.name.encode()] = model.name
        return reader

    def _decode(self, piece: Piece) -> tuple[list[tuple[Any, ...]], list[bytes], list[int]]:
        """Return columns and features of each sound record, and the indices of the refused ones."""
        readers, limit = self._readers, self.max_value_bytes
        values, keys = cast(list[bytes], piece.source.values), cast(list[bytes], piece.source.keys)
        packed, columns = packed_decoder(), prediction_columns
        rows: list[tuple[Any, ...]] = []
        features, refused = [], []
        for at in range(piece.start, piece.stop):
            value = values[at]
            try:
                json, msgpack, layout, _, _ = readers[keys[at]]
                first = value[0]
                if first == 0x7B:
                    event = json(value)
                    try:
                        raw = layout.pack(*astuple(event.features))
                    except struct.error:
                        raw = layout.align(astuple(event.features))
                elif 0x90 <= first <= 0x9F:
                    event = packed(value)
                    raw = event.features
                    if len(raw) != layout.size_bytes or (event.names and event.names != layout.joined_names):
                        raise Odd
                else:
                    event = msgpack(value)
                    raw = no_nan(layout, event.features)
                if len(value) > limit:
                    raise Odd
            except REFUSED:
                event, raw = self.inspector.prediction(piece, at)
                if event is None:
                    refused.append(at)
                    continue
                if keys[at] not in readers:
                    self._know(self.table.slots[event.model])
            # The event is let go at once: its memory is then still in the cache for the next one.
            rows.append(columns(event))
            features.append(raw)
        return rows, features, refused

    def _columns(self, piece: Piece, found: list[tuple[Any, ...]], features: list[bytes], kept: Ints) -> tuple[Any, list[bool]]:
        keys: list[Any] = piece.source.keys[piece.start : piece.stop]
        if len(kept) != len(keys):
            keys = [keys[at] for at in kept.tolist()]
        models, versions, idents, seconds, outputs, scores_given, latencies = zip(*found, strict=True)
        readers = list(map(self._readers.__getitem__, keys))
        slots = np.array([reader.slot for reader in readers])
        stamps = np.array(piece.source.timestamps_ms[piece.start : piece.stop])[kept]
        ts, wrong_ts = times(seconds, stamps)
        latency, wrong_latency = numbers(latencies)
        scores, confidence, wrong_scores = columns_of_scores(scores_given, slots, self.table)
        rows = Predictions(
            order=piece.order[kept],
            time_ms=piece.time_ms[kept],
            slot=slots,
            version=np.array(versions),
            offset=np.array(piece.source.offsets[piece.start : piece.stop])[kept],
            ids=hashed(idents, self.table.hashes()[slots]),
            ts=ts,
            confidence=confidence,
            latency_ms=latency,
            scores=scores,
            outputs=list(outputs),
            groups=groups_of(readers, features),
        )
        wrong = wrong_ts | wrong_latency | wrong_scores | self._odd_times(ts, stamps)
        return (rows, wrong, kept), strange_names(list(models), [reader.model for reader in readers])

    def _odd_times(self, ts: Floats, stamps: Ints) -> Wrong:
        future = ts - stamps / 1000.0 > self.inspector.config.max_future_s
        return (ts < YEAR_2000_S) | (future & (stamps >= 0))

    def _suspects(self, rows: Predictions, more: tuple[Any, ...], strange: list[bool], piece: Piece) -> Any:
        wrong, kept = more
        if strange:
            wrong |= np.array(strange)
        for _, at, values in rows.groups:
            odd = np.abs(values) > FLOAT32_MAX
            if odd.any():
                wrong[at[odd.any(axis=1)]] = True
        wrong |= strange_outputs(rows.outputs, rows.slot, self.table)
        return [(at, int(kept[at]) + piece.start) for at in np.flatnonzero(wrong).tolist()]

    def _judged(self, rows: Predictions, suspects: list[tuple[int, int]], piece: Piece) -> Predictions:
        bad = [row for row, at in suspects if not self.inspector.sound_prediction(piece, at)]
        if not bad:
            return rows
        keep = np.ones(len(rows), np.bool_)
        keep[bad] = False
        return rows.take(keep)

    def _label_columns(self, piece: Piece, events: list[Any]) -> Labels:
        odd = False
        for row in [row for row, event in enumerate(events) if event is None]:
            events[row] = self.inspector.label(piece, piece.start + row)
            odd |= events[row] is None
        at = np.arange(len(events))
        keys: list[Any] = piece.source.keys[piece.start : piece.stop]
        if odd:
            at = np.array([row for row, event in enumerate(events) if event is not None], np.int64)
            events, keys = [event for event in events if event is not None], [keys[row] for row in at.tolist()]
        if not events:
            return no_labels()
        models, values = [event.model for event in events], [event.label for event in events]
        known = self.table.slots
        slots = np.array([known.get(model, -1) for model in models])
        stamps = np.array(piece.source.timestamps_ms[piece.start : piece.stop])[at]
        ts, wrong = times([event.ts for event in events], stamps)
        wrong |= self._odd_times(ts, stamps) | strange_labels(values)
        found = strange_names(models, list(map(self._names.get, keys)))
        if found:
            wrong |= np.array(found)
        rows = Labels(
            order=piece.order[at],
            time_ms=piece.time_ms[at],
            slot=slots,
            offset=np.array(piece.source.offsets[piece.start : piece.stop])[at],
            ids=hashed([event.prediction_id for event in events], self._name_hashes(models, slots)),
            at=at + piece.start,
            values=values,
        )
        bad = [row for row in np.flatnonzero(wrong).tolist() if self.inspector.label(piece, piece.start + int(at[row])) is None]
        return rows if not bad else rows.take(~np.isin(np.arange(len(rows)), bad))

    def _name_hashes(self, models: list[str], slots: Ints) -> Ids:
        if len(self.table) and slots.min() >= 0:
            return self.table.hashes()[slots]
        return np.frombuffer(b"".join([xxhash.xxh3_128_digest(model.encode()) for model in models]), np.uint64).reshape(-1, 2)
