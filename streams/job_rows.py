"""Read a job's labelled rows from the predictions and labels topics: by offset range, or the newest ones."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..schemas import codecs
from ..schemas.errors import EventInvalid, JobError
from ..schemas.events import JobRequested, LabelArrived, PredictionMade, RowRange, Scalar, Signature
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
FLOAT32_MAX = float(np.finfo(np.float32).max)
log = logging.getLogger("driftloop.worker")


class JobRows(NamedTuple):
    """Give the rows after the change, some from before it (None where none were asked for), and how many were dropped and why.

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


def read_rows(transport: Transport, settings: Settings, request: JobRequested, signature: Signature) -> JobRows:
    """Return the rows of a request, the newest `worker.max_rows` of each kind; raises JobError for features that are no numbers."""
    source = _Source(transport, settings, request.model, signature)
    if request.rows is not None:
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

    def read(self, span: RowRange) -> JobRows:
        """Return the rows of a range: labels first, so that only labelled predictions are held."""
        dropped: Counter[str] = Counter()
        limit = self.settings.worker.max_rows
        first, labels_first = span.start_offset, span.labels_start_offset
        if span.reference_start_offset is not None:
            first = min(first, span.reference_start_offset)
            labels_first = min(
                labels_first, span.labels_start_offset if span.reference_labels_offset is None else span.reference_labels_offset
            )
        labels = self._labels(span.partition, labels_first)
        new: deque[_Row] = deque(maxlen=limit)
        old: deque[_Row] = deque(maxlen=limit)
        for record in self._records("predictions", span.partition, first):
            if span.end_offset is not None and record.offset >= span.end_offset:
                break
            row = self._row(record, labels, dropped)
            if row is not None:
                (new if record.offset >= span.start_offset else old).append(row)
        if dropped:
            log.warning(
                "rows of %s left out: %s", self.model, ", ".join(f"{count} {why}" for why, count in sorted(dropped.items()))
            )
        old_rows = None if span.reference_start_offset is None else self._rows(old)
        return JobRows(self._rows(new), old_rows, dict(dropped), _closed(span, new))

    def _labels(self, partition: int, start: int) -> dict[str, Scalar]:
        labels: dict[str, Scalar] = {}
        for record in self._records("labels", partition, start):
            event = self._decode(record, LabelArrived)
            if event is None:
                continue
            if event.label is None:
                labels.pop(event.prediction_id, None)
            else:
                # The first label counts, as in the monitor; a later one only after a retraction.
                labels.setdefault(event.prediction_id, event.label)
        return labels

    def _row(self, record: Record, labels: dict[str, Scalar], dropped: Counter[str]) -> _Row | None:
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
        return _Row(record.offset, features, label, event.segment)

    def _features(self, event: PredictionMade) -> list[float] | None:
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

    def _rows(self, rows: deque[_Row]) -> Rows:
        features = np.array([row.features for row in rows], dtype=np.float32).reshape(len(rows), len(self.signature.features))
        offsets = np.array([row.offset for row in rows], dtype=np.int64)
        segments = tuple(row.segment for row in rows) if any(row.segment is not None for row in rows) else None
        values = [row.label for row in rows]
        if self.signature.task == "classification":
            return Rows(features, np.array(values, dtype=np.int64), offsets, segments)
        return Rows(features, np.array(values, dtype=np.float64), offsets, segments)

    def _decode(self, record: Record, kind: Any) -> Any:
        value = record.value
        if value is None or not _may_name(value, self.model):
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
                for record in reader.poll(READ_RECORDS, POLL_S):
                    if record.partition == partition:
                        yield record
        finally:
            reader.close()


def _closed(span: RowRange, rows: deque[_Row]) -> RowRange | None:
    if not rows:
        return None
    # Where old rows were read too, the start is the border between the two and stays.
    start = rows[0].offset if span.reference_start_offset is None else span.start_offset
    return msgspec.structs.replace(span, start_offset=start, end_offset=rows[-1].offset + 1)


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
    if isinstance(label, str | bool) or not math.isfinite(label):
        return None
    return float(label)
