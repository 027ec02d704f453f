"""Intake: the records of a batch, decoded, checked by column, and laid out as columns of predictions and labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import numpy as np
import xxhash

from ..schemas.layouts import Layout, label_columns, prediction_columns
from ..schemas.values import FLOAT32_MAX
from .admission import MAX_LABEL_BYTES, YEAR_2000_S
from .alike import Columns, Unlike, alike_labels, alike_predictions
from .checked_columns import (
    Wrong,
    columns_of_scores,
    groups_of,
    hashed,
    numbers,
    strange_names,
    strange_outputs,
    strange_scalars,
    times,
    whole_numbers,
)
from .columns import Floats, Ints
from .decoding import FEATURES, JSON_START, REFUSED, columns_of_packed, first_byte, is_packed, json_rows, label_rows, packed_rows
from .inspection import Inspector, Odd, no_nan
from .model_table import ModelTable
from .pending import Ids
from .pieces import Keys, Labels, Piece, Predictions, no_labels, no_predictions
from .scalars import listed, numbers_of, types_of
from .stream_time import YEAR_2000_MS, YEAR_2100_MS


class Reader(NamedTuple):
    """What is known of the records of one key."""

    layout: Layout
    model: str
    slot: int


class Intake:
    """The way of records into columns; what is odd goes to the inspector, which admits or refuses it."""

    def __init__(self, table: ModelTable, inspector: Inspector, max_value_bytes: int) -> None:
        self.table = table
        self.inspector = inspector
        self.max_value_bytes = max_value_bytes
        self._readers: dict[bytes, Reader] = {}
        self._names: dict[bytes, str] = {}
        self._slots: dict[bytes, int] = {}

    def know(self, name: str) -> None:
        """Read the layout of a model anew."""
        self._know(self.table.slots[name])

    def know_all(self) -> None:
        """Read the layouts of all models."""
        for slot, model in enumerate(self.table.models):
            if model.layout is not None:
                self._know(slot)

    def forget(self, name: str) -> None:
        """Forget a model that is gone."""
        for known in (self._readers, self._names, self._slots):
            known.pop(name.encode(), None)

    def predictions(self, piece: Piece) -> Predictions:
        """Return the sound predictions of a piece; the others are with the inspector's refusals."""
        if piece.stop == piece.start:
            return no_predictions()
        found, features, refused = self._decode(piece)
        kept = None
        if refused:
            kept = np.delete(np.arange(piece.stop - piece.start), np.array(refused) - piece.start)
            if not len(kept):
                return no_predictions()
        rows, wrong = self._columns(piece, found, features, kept)
        return self._judged(rows, self._suspects(rows, wrong), kept, piece)

    def labels(self, piece: Piece) -> Labels:
        """Return the sound labels of a piece; the others are with the inspector's refusals."""
        if piece.stop == piece.start:
            return no_labels()
        values, limit = piece.source.values[piece.start : piece.stop], min(self.max_value_bytes, MAX_LABEL_BYTES)
        if not piece.keys().different.difference(self._slots):
            with suppress(Unlike):
                return self._label_columns(piece, alike_labels(values, piece.keys(), limit), None)
        rows = label_rows(values, limit)
        kept = None
        if None in rows:
            for row in [row for row, found in enumerate(rows) if found is None]:
                event = self.inspector.label(piece, piece.start + row)
                rows[row] = None if event is None else label_columns(event)
            if None in rows:
                kept = np.array([row for row, found in enumerate(rows) if found is not None], np.int64)
                rows = [row for row in rows if row is not None]
                if not rows:
                    return no_labels()
        return self._label_columns(piece, tuple(zip(*rows, strict=True)), kept)

    def _know(self, slot: int) -> Reader:
        model = self.table.models[slot]
        assert model.layout is not None
        reader = Reader(model.layout, model.name, slot)
        self._readers[model.name.encode()] = reader
        self._names[model.name.encode()] = model.name
        self._slots[model.name.encode()] = slot
        return reader

    def _decode(self, piece: Piece) -> tuple[Columns, Sequence[bytes] | Floats, list[int]]:
        """Return columns and features of the sound records, and the indices of the refused ones."""
        values = cast(list[bytes], piece.source.values[piece.start : piece.stop])
        keys = piece.keys()
        new = keys.different.difference(self._readers)
        if not new:
            with suppress(Unlike):
                return *self._alike(values, keys), []
        first = first_byte(values, self.max_value_bytes)
        if first == JSON_START and not new:
            rows, features = json_rows(values, self._layouts(keys))
        elif is_packed(first) and not new:
            packed = packed_rows(values, self._layouts(keys), first)
            if None not in packed:
                columns = tuple(zip(*packed, strict=True))
                return columns_of_packed(columns), columns[FEATURES], []
            rows, features = _opened(packed)
        else:
            rows, features = self._sorted_out(values, keys.each)
        refused = []
        if None in rows:
            self._fill(piece, keys, (rows, features))
            refused = [piece.start + row for row, found in enumerate(rows) if found is None]
            if refused:
                rows, features = (
                    [row for row in rows if row is not None],
                    [features[at] for at, row in enumerate(rows) if row is not None],
                )
        return tuple(zip(*rows, strict=True)), features, refused

    def _alike(self, values: list[bytes], keys: Keys) -> tuple[Columns, Floats]:
        layouts = self._layouts(keys)
        if len(layouts) > 1:
            raise Unlike
        return alike_predictions(values, keys, layouts[0], self.max_value_bytes)

    def _layouts(self, keys: Keys) -> list[Layout]:
        """Return the layout of all the keys, or one for each."""
        readers = self._readers
        found = list({readers[key].layout for key in keys.different})
        return found if len(found) == 1 else [readers[key].layout for key in keys.each]

    def _sorted_out(self, values: list[bytes], keys: list[bytes]) -> tuple[list[Any], list[bytes]]:
        """Decode what is JSON and what is packed, each at once; other forms, unknown keys and what is too large is left as None."""
        json, packed, limit = [], [], self.max_value_bytes
        for at, (value, key) in enumerate(zip(values, keys, strict=True)):
            if value and key in self._readers and len(value) <= limit:
                if value[0] == JSON_START:
                    json.append(at)
                elif is_packed(value[0]):
                    packed.append(at)
        rows: list[Any] = [None] * len(values)
        features = [b""] * len(values)
        for mine in (json, packed):
            if not mine:
                continue
            some, layouts = [values[at] for at in mine], self._layouts(Keys.of([keys[at] for at in mine]))
            found = json_rows(some, layouts) if mine is json else _opened(packed_rows(some, layouts, first_byte(some, limit)))
            for at, row, raw in zip(mine, *found, strict=True):
                rows[at], features[at] = row, raw
        return rows, features

    def _fill(self, piece: Piece, keys: Keys, into: tuple[list[Any], list[bytes]]) -> None:
        """Read the records that are not plain; where the key was new, the first sound one says how all others of it are decoded."""
        rows, features = into
        left = [row for row, found in enumerate(rows) if found is None]
        new, plain = keys.different.difference(self._readers), []
        for row in left:
            if keys.each[row] in new and keys.each[row] in self._readers:
                plain.append(row)
            else:
                rows[row], features[row] = self._one(piece, piece.start + row)
        values = [piece.source.values[piece.start + row] for row in plain]
        found = self._sorted_out(cast(list[bytes], values), [keys.each[row] for row in plain])
        for row, columns, raw in zip(plain, *found, strict=True):
            rows[row], features[row] = (columns, raw) if columns is not None else self._one(piece, piece.start + row)

    def _one(self, piece: Piece, at: int) -> tuple[Any, bytes]:
        """Return columns and features of a record that is not plain, None where it is refused."""
        value, key = piece.source.values[at], piece.source.keys[at]
        reader = None if key is None else self._readers.get(key)
        if reader is not None and key is not None and value and len(value) <= self.max_value_bytes:
            try:
                event = reader.layout.decode_msgpack(value)
                return prediction_columns(event), no_nan(reader.layout, event.features)
            except (*REFUSED, Odd):
                pass
        found, raw = self.inspector.prediction(piece, at)
        if found is None:
            return None, raw
        if reader is None:
            self._know(self.table.slots[found.model])
        return prediction_columns(found), raw

    def _columns(
        self, piece: Piece, found: Columns, features: Sequence[bytes] | Floats, kept: Ints | None
    ) -> tuple[Predictions, Wrong]:
        keys = piece.keys(kept)
        models, versions, idents, seconds, outputs, scores_given, latencies = found
        slots, strange = self._slots_of(keys, models)
        types = types_of(outputs)
        order, time_ms, stamps, offset = piece.columns(kept)
        ts, wrong = times(seconds, stamps)
        wrong |= self._odd_times(ts, stamps)
        latency, wrong_latency = numbers(latencies)
        wrong |= wrong_latency
        scores, confidence, wrong_scores = columns_of_scores(scores_given, slots, self.table)
        wrong |= wrong_scores
        if strange:
            wrong |= np.array(strange)
        rows = Predictions(
            order=order,
            time_ms=time_ms,
            slot=slots,
            version=whole_numbers(versions),
            offset=offset,
            ids=hashed(idents, self.table.hashes()[slots]),
            ts=ts,
            confidence=confidence,
            latency_ms=latency,
            scores=scores,
            outputs=list(listed(outputs)),
            types=types,
            numbers=numbers_of(outputs, types),
            groups=groups_of(self._layouts(keys), features),
        )
        return rows, wrong

    def _slots_of(self, keys: Keys, models: Sequence[str] | None) -> tuple[Ints, list[bool]]:
        """Return the slots of known keys, and which models are not those that the keys say; nothing where all are.

        `models` is None where they are known to be.
        """
        each = keys.each
        if len(keys.different) == 1:
            name, slots = self._names[each[0]], np.full(len(each), self._slots[each[0]])
            if models is None or models.count(name) == len(models):
                return slots, []
            return slots, [model != name for model in models]
        slots = np.fromiter(map(self._slots.__getitem__, each), np.int64, len(each))
        return slots, [] if models is None else strange_names(list(models), list(map(self._names.__getitem__, each)))

    def _odd_times(self, ts: Floats, stamps: Ints) -> Wrong:
        future = ts - stamps / 1000.0 > self.inspector.config.max_future_s
        odd = (ts < YEAR_2000_S) | (future & (stamps >= 0))
        # The two ends say it of all.
        if stamps.min() < YEAR_2000_MS or stamps.max() > YEAR_2100_MS:
            odd |= ((stamps >= 0) & (stamps < YEAR_2000_MS)) | (stamps > YEAR_2100_MS)
        return odd

    def _suspects(self, rows: Predictions, wrong: Wrong) -> list[int]:
        for _, at, values in rows.groups:
            # The two ends say it of all, as long as nothing is missing.
            if values.size and not -FLOAT32_MAX <= values.min() <= values.max() <= FLOAT32_MAX:
                wrong[at[(np.abs(values) > FLOAT32_MAX).any(axis=1)]] = True
        wrong |= strange_outputs(rows, self.table)
        return wrong.nonzero()[0].tolist()

    def _judged(self, rows: Predictions, suspects: list[int], kept: Ints | None, piece: Piece) -> Predictions:
        places = [(row, row if kept is None else int(kept[row])) for row in suspects]
        bad = [row for row, at in places if not self.inspector.sound_prediction(piece, piece.start + at)]
        if not bad:
            return rows
        keep = np.ones(len(rows), np.bool_)
        keep[bad] = False
        return rows.take(keep)

    def _label_columns(self, piece: Piece, found: Columns, kept: Ints | None) -> Labels:
        models, idents, said, seconds = found
        values, types, keys = list(listed(said)), types_of(said), piece.keys(kept)
        slots, strange = self._slots_of(keys, None) if models is None else self._label_slots(keys.each, models)
        order, time_ms, stamps, offset = piece.columns(kept)
        ts, wrong = times(seconds, stamps)
        wrong |= self._odd_times(ts, stamps)
        as_numbers = numbers_of(said, types)
        wrong |= strange_scalars(values, as_numbers, types)
        if strange:
            wrong |= np.array(strange)
        rows = Labels(
            order=order,
            time_ms=time_ms,
            slot=slots,
            offset=offset,
            ids=hashed(idents, self.table.hashes()[slots] if models is None else self._name_hashes(models, slots)),
            at=np.arange(piece.start, piece.stop) if kept is None else kept + piece.start,
            values=values,
            types=types,
            numbers=as_numbers,
        )
        bad = [row for row in wrong.nonzero()[0].tolist() if self.inspector.label(piece, int(rows.at[row])) is None]
        return rows if not bad else rows.take(~np.isin(np.arange(len(rows)), bad))

    def _label_slots(self, keys: list[Any], models: Sequence[str]) -> tuple[Ints, list[bool]]:
        known = self.table.slots
        if models.count(models[0]) == len(models):
            slots = np.full(len(models), known.get(models[0], -1))
        else:
            slots = np.array([known.get(model, -1) for model in models], np.int64)
        return slots, strange_names(list(models), list(map(self._names.get, keys)))

    def _name_hashes(self, models: Sequence[str], slots: Ints) -> Ids:
        if len(self.table) and slots.min() >= 0:
            return self.table.hashes()[slots]
        return np.frombuffer(b"".join([xxhash.xxh3_128_digest(model.encode()) for model in models]), np.uint64).reshape(-1, 2)


def _opened(packed: list[Any]) -> tuple[list[Any], list[bytes]]:
    """Return columns and features of packed predictions, None and nothing where there is none."""
    return (
        [None if row is None else columns_of_packed(row) for row in packed],
        [b"" if row is None else row[FEATURES] for row in packed],
    )
