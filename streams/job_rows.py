"""Read a job's labelled rows from the predictions and labels topics: by offset range, or the newest ones, in bounded memory."""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..schemas import codecs
from ..schemas.errors import EventInvalid, JobError
from ..schemas.events import JobRequested, LabelArrived, PredictionMade, RowRange, Scalar, Signature
from ..schemas.feature_row import FeatureRows
from ..schemas.partitions import partition_of
from ..schemas.records import Record
from ..schemas.rows import Rows
from ..settings import Settings
from .newest_change import newest_change
from .transport import Transport

READ_RECORDS = 5_000
POLL_S = 0.2
FIRST_SPAN = 4  # records looked back over for the newest rows, in units of max_rows; doubled until they hold enough
MAX_SPAN = 64
# Beside its features a row has label, offset and segment; a label its id, itself, and a place in the table.
ROW_BYTES = 24
LABEL_BYTES = 320
MIN_FITTING = 100
MAX_ID_CHARACTERS = 256
FLOAT32_MAX = float(np.finfo(np.float32).max)
log = logging.getLogger("driftloop.worker")


class JobRows(NamedTuple):
    """The rows after the change, some from before it (None where none were asked for), and how many were dropped and why.

    `span` is the range they came from, closed after the newest row (None without rows).
    """

    rows: Rows
    old_rows: Rows | None
    dropped: dict[str, int]
    span: RowRange | None


class _Row(NamedTuple):
    offset: int
    features: list[float]
    label: float
    segment: str | None


class _Ring:
    """The newest rows of one kind in columns of a fixed size: memory is touched as rows come, and no more than the bound allows."""

    def __init__(self, limit: int, width: int) -> None:
        self._limit = limit
        self._count = 0
        self._features = np.empty((limit, width), np.float32)
        self._labels = np.empty(limit, np.float64)
        self._offsets = np.empty(limit, np.int64)
        self._segments = np.zeros(limit, np.int32)
        self._names: dict[str | None, int] = {None: 0}

    def __len__(self) -> int:
        return min(self._count, self._limit)

    def add(self, row: _Row) -> None:
        at = self._count % self._limit
        self._features[at], self._labels[at], self._offsets[at] = row.features, row.label, row.offset
        self._segments[at] = self._names.setdefault(row.segment, len(self._names))
        self._count += 1

    def rows(self, dtype: Any) -> Rows:
        """Return the rows in the order in which they came."""
        first = self._count % self._limit if self._count > self._limit else 0
        order = np.roll(np.arange(len(self)), -first)
        names = list(self._names)
        segments = tuple(names[one] for one in self._segments[order]) if len(names) > 1 else None
        if segments is not None and not any(segments):
            segments = None
        features = self._features[: len(self)] if first == 0 else self._features[order]
        return Rows(features, self._labels[order].astype(dtype), self._offsets[order], segments)


def read_rows(
    transport: Transport,
    settings: Settings,
    request: JobRequested,
    signature: Signature,
    tick: Callable[[], None] = lambda: None,
) -> JobRows:
    """Return the rows of a request, the newest `worker.max_rows` of each kind, fewer where they would pass `worker.max_row_bytes`.

    `tick` is called after every read and may raise. Raises JobError for features that are no numbers, or a range that is none.
    """
    # Rows of numbers alone need no look at each value's kind.
    coded = FeatureRows(signature) if signature.categories else None
    source = _Source(transport, settings, request.model, signature, tick, coded)
    if request.rows is not None:
        _check_range(request.rows, len(transport.end_offsets(settings.topic("predictions"))))
        return source.read(request.rows)
    partitions = transport.end_offsets(settings.topic("predictions"))
    partition = partition_of(request.model.encode(), len(partitions))
    ends = {kind: transport.end_offsets(settings.topic(kind)).get(partition, 0) for kind in ("predictions", "labels")}
    change = newest_change(transport, settings, request.model, partition)
    # Rows from before and after a change teach nothing that holds now.
    whole = RowRange(partition=partition, start_offset=0, labels_start_offset=0) if change is None else change
    span = FIRST_SPAN * settings.worker.max_rows
    while True:
        start = max(whole.start_offset, ends["predictions"] - span)
        labels_start = max(whole.labels_start_offset, ends["labels"] - span)
        is_whole = start == whole.start_offset and labels_start == whole.labels_start_offset
        part = RowRange(partition=partition, start_offset=start, labels_start_offset=labels_start)
        found = source.read(whole if is_whole else part)
        enough = len(found.rows) >= settings.worker.max_rows or is_whole
        if enough or span >= MAX_SPAN * settings.worker.max_rows:
            return found
        span *= 2


@dataclass(frozen=True, slots=True)
class _Source:
    transport: Transport
    settings: Settings
    model: str
    signature: Signature
    tick: Callable[[], None]
    coded: FeatureRows | None = None

    def read(self, span: RowRange) -> JobRows:
        """Return the rows of a range: labels first, so that only labelled predictions are held."""
        dropped: Counter[str] = Counter()
        first, labels_first = span.start_offset, span.labels_start_offset
        if span.reference_start_offset is not None:
            first = min(first, span.reference_start_offset)
            labels_first = min(
                labels_first, span.labels_start_offset if span.reference_labels_offset is None else span.reference_labels_offset
            )
        # Half of the memory for the new rows, a quarter for the old ones, a quarter for the labels.
        bound_bytes, width = self.settings.worker.max_row_bytes, len(self.signature.features)
        new, old = (_Ring(self._fitting(bound_bytes // share), width) for share in (2, 4))
        labels = self._labels(span.partition, labels_first, dropped)
        for record in self._records("predictions", span.partition, first):
            if span.end_offset is not None and record.offset >= span.end_offset:
                break
            row = self._row(record, labels, dropped)
            if row is not None:
                (new if record.offset >= span.start_offset else old).add(row)
        if dropped:
            log.warning(
                "rows of %s left out: %s", self.model, ", ".join(f"{count} {why}" for why, count in sorted(dropped.items()))
            )
        dtype = np.int64 if self.signature.task == "classification" else np.float64
        old_rows = None if span.reference_start_offset is None else old.rows(dtype)
        rows = new.rows(dtype)
        return JobRows(rows, old_rows, dict(dropped), _closed(span, rows))

    def _fitting(self, bound_bytes: int) -> int:
        """Return how many rows fit, at most `worker.max_rows`."""
        width = len(self.signature.features)
        fitting = bound_bytes // (4 * width + ROW_BYTES)
        if fitting < MIN_FITTING:
            raise JobError("memory", f"{MIN_FITTING} rows must fit worker.max_row_bytes, got {width} features (model {self.model})")
        return min(self.settings.worker.max_rows, fitting)

    def _labels(self, partition: int, start: int, dropped: Counter[str]) -> OrderedDict[str, Scalar]:
        labels: OrderedDict[str, Scalar] = OrderedDict()
        limit = self.settings.worker.max_row_bytes // 4 // LABEL_BYTES
        for record in self._records("labels", partition, start):
            event = self._decode(record, LabelArrived)
            if event is None or len(event.prediction_id) > MAX_ID_CHARACTERS:
                continue
            if isinstance(event.label, str) and len(event.label) > MAX_ID_CHARACTERS:
                continue
            if event.label is None:
                labels.pop(event.prediction_id, None)
            else:
                # The first label counts, as in the monitor; a later one only after a retraction.
                labels.setdefault(event.prediction_id, event.label)
                if len(labels) > limit:
                    labels.popitem(last=False)
                    dropped["whose label gave way to newer ones (worker.max_row_bytes)"] += 1
        return labels

    def _row(self, record: Record, labels: OrderedDict[str, Scalar], dropped: Counter[str]) -> _Row | None:
        event: PredictionMade | None = self._decode(record, PredictionMade)
        if event is None or event.prediction_id not in labels:
            return None
        # Taken out, so that a prediction sent twice is one row.
        label = _label(labels.pop(event.prediction_id), self.signature)
        if label is None:
            dropped["with an unknown label"] += 1
            return None
        features = self._features(event)
        if features is None:
            dropped["with the wrong number of features"] += 1
            return None
        if any(abs(value) > FLOAT32_MAX for value in features):
            dropped["with a number beyond float32"] += 1
            return None
        segment = event.segment if event.segment is None or len(event.segment) <= MAX_ID_CHARACTERS else None
        return _Row(record.offset, features, label, segment)

    def _features(self, event: PredictionMade) -> list[float] | None:
        if self.coded is not None:
            return self._coded(event, self.coded)
        names = self.signature.features
        given = event.features
        values = [given.get(name) for name in names] if isinstance(given, dict) else given
        if len(values) != len(names):
            return None
        numbers: list[float] = []
        for name, value in zip(names, values, strict=True):
            if isinstance(value, str):
                raise JobError("error", f"feature must be a number for this recipe, got text in {name!r} (model {self.model})")
            numbers.append(math.nan if value is None else value)
        return numbers

    def _coded(self, event: PredictionMade, rows: FeatureRows) -> list[float] | None:
        given = event.features
        named = isinstance(given, dict)
        if (named and not any(name in given for name in rows.names)) or (not named and len(given) != len(rows.names)):
            return None
        try:
            return rows.row(given)
        except EventInvalid as problem:
            raise JobError("error", f"{problem} (model {self.model})") from None

    def _decode(self, record: Record, kind: Any) -> Any:
        value = record.value
        if value is None or len(value) > self.settings.monitor.max_value_bytes or not _may_name(value, self.model):
            return None
        try:
            event = codecs.decode(value, kind, "")
        except EventInvalid:
            return None
        return event if event.model == self.model else None

    def _records(self, kind: str, partition: int, start: int) -> Iterator[Record]:
        """Yield what one partition held when reading began; the others are entered at their end."""
        topic = self.settings.topic(kind)
        ends = self.transport.end_offsets(topic)
        starts = {(topic, other): end for other, end in ends.items()} | {(topic, partition): start}
        reader = self.transport.reader([topic], starts)
        try:
            while not reader.at_end():
                self.tick()
                for record in reader.poll(READ_RECORDS, POLL_S):
                    if record.partition == partition:
                        yield record
        finally:
            reader.close()


def _closed(span: RowRange, rows: Rows) -> RowRange | None:
    if not len(rows):
        return None
    # Where old rows were read too, the start is the border between the two and stays.
    start = int(rows.offsets[0]) if span.reference_start_offset is None else span.start_offset
    return msgspec.structs.replace(span, start_offset=start, end_offset=int(rows.offsets[-1]) + 1)


def _check_range(span: RowRange, partitions: int) -> None:
    """Refuse a range that names no rows; the client takes negative offsets for words such as "beginning"."""
    if not 0 <= span.partition < partitions:
        raise JobError("error", f"rows.partition must be 0 to {partitions - 1}, got {span.partition}")
    for name in ("start_offset", "labels_start_offset", "end_offset", "reference_start_offset", "reference_labels_offset"):
        offset = getattr(span, name)
        if offset is not None and offset < 0:
            raise JobError("error", f"rows.{name} must be an offset from 0, got {offset}")


def _may_name(value: bytes, model: str) -> bool:
    """Return False only where the bytes cannot hold the model's name, which spares other models' records the decoding."""
    return not (model.isascii() and model.replace("-", "").replace("_", "").isalnum()) or model.encode() in value


def _label(label: Scalar, signature: Signature) -> float | None:
    if signature.task == "classification":
        kind = isinstance(label, str)
        for index, known in enumerate(signature.classes):
            if known == label and isinstance(known, str) == kind:
                return index
        return None
    if isinstance(label, str | bool):
        return None
    try:
        return float(label) if math.isfinite(label) else None
    except OverflowError:
        return None
