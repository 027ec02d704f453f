"""Rows of a job: joined, ordered, bounded, and only the asked-for ones."""

import numpy as np
import pytest

from driftloop.schemas.codecs import PackedPrediction, encode_json, encode_msgpack, pack_features
from driftloop.schemas.config import WorkerConfig
from driftloop.schemas.errors import JobError
from driftloop.schemas.events import FeatureValue, JobRequested, LabelArrived, PredictionMade, RowRange, Scalar, Signature
from driftloop.schemas.partitions import partition_of
from driftloop.settings import Settings
from driftloop.streams.job_rows import read_rows
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.transport import Outgoing

SETTINGS = Settings()
SIGNATURE = Signature(task="classification", features=("a", "b"), classes=("no", "yes"))
PARTITION = partition_of(b"m", 4)


class Log:
    def __init__(self) -> None:
        self.transport = MemoryTransport()
        self.sender = self.transport.sender()

    def predict(self, number: int, features: dict[str, FeatureValue] | list[FeatureValue] | None = None, model: str = "m") -> None:
        given = {"a": float(number), "b": 0.5} if features is None else features
        event = PredictionMade(model=model, version=1, prediction_id=f"p{number}", output="no", features=given)
        self.raw("predictions", encode_json(event))

    def label(self, number: int, label: Scalar | None = "yes", model: str = "m") -> None:
        self.raw("labels", encode_json(LabelArrived(model=model, prediction_id=f"p{number}", label=label)))

    def raw(self, kind: str, value: bytes) -> None:
        self.sender.send(Outgoing(SETTINGS.topic(kind), b"m", value))


def asked(rows: RowRange | None = None) -> JobRequested:
    return JobRequested(model="m", job_id="j", recipe="repair", requested_by="user", rows=rows)


def span(start: int, end: int | None = None, reference: int | None = None) -> RowRange:
    return RowRange(
        partition=PARTITION, start_offset=start, labels_start_offset=0, end_offset=end, reference_start_offset=reference
    )


def test_rows_are_joined_in_the_order_of_predictions_whatever_the_labels_do() -> None:
    log = Log()
    for number in range(6):
        log.predict(number)
    for number, label in ((5, "no"), (3, "yes"), (4, "yes"), (0, "no")):
        log.label(number, label)
    found = read_rows(log.transport, SETTINGS, asked(span(2)), SIGNATURE)
    assert found.rows.offsets.tolist() == [3, 4, 5]
    assert found.rows.labels.tolist() == [1, 1, 0]
    assert found.rows.features.tolist() == [[3.0, 0.5], [4.0, 0.5], [5.0, 0.5]]
    assert found.rows.features.dtype == np.float32
    assert found.old_rows is None
    assert found.span == RowRange(partition=PARTITION, start_offset=3, labels_start_offset=0, end_offset=6)
    log.predict(6)
    log.label(6)
    again = read_rows(log.transport, SETTINGS, asked(found.span), SIGNATURE)
    assert (again.rows.offsets.tolist(), again.span) == ([3, 4, 5], found.span)


def test_old_rows_lie_before_the_change_and_the_end_is_exclusive() -> None:
    log = Log()
    for number in range(8):
        log.predict(number)
        log.label(number)
    found = read_rows(log.transport, SETTINGS, asked(span(4, end=6, reference=1)), SIGNATURE)
    assert found.rows.offsets.tolist() == [4, 5]
    assert found.old_rows is not None
    assert found.old_rows.offsets.tolist() == [1, 2, 3]


def test_duplicates_retractions_strangers_and_rubbish_make_no_rows() -> None:
    log = Log()
    log.predict(0)
    log.predict(0)
    log.predict(1)
    log.predict(2)
    log.predict(9, model="m2")
    log.raw("predictions", b'{"model":"m"')
    log.raw("labels", b"\x00m")
    log.label(0)
    log.label(0, "no")
    log.label(1)
    log.label(1, None)
    log.label(2, "maybe")
    log.label(9, model="m2")
    found = read_rows(log.transport, SETTINGS, asked(span(0)), SIGNATURE)
    assert (found.rows.offsets.tolist(), found.rows.labels.tolist()) == ([0], [1])
    assert found.dropped == {"with an unknown label": 1}


def test_packed_features_missing_values_and_wrong_widths() -> None:
    log = Log()
    packed = PackedPrediction(model="m", version=1, prediction_id="p0", ts=0.0, output="no", features=pack_features([1.5, None]))
    log.raw("predictions", encode_msgpack(packed))
    log.predict(1, {"a": 2.0})
    log.predict(2, [1.0, 2.0, 3.0])
    log.predict(3, {"a": 1e300, "b": 0.0})
    for number in range(4):
        log.label(number)
    found = read_rows(log.transport, SETTINGS, asked(span(0)), SIGNATURE)
    np.testing.assert_array_equal(found.rows.features, np.array([[1.5, np.nan], [2.0, np.nan]], dtype=np.float32))
    assert found.dropped == {"with the wrong number of features": 1, "with a number beyond float32": 1}


def test_text_features_end_the_job_with_a_clear_message() -> None:
    log = Log()
    log.predict(0, {"a": "red", "b": 1.0})
    log.label(0)
    with pytest.raises(JobError, match="got text in 'a'"):
        read_rows(log.transport, SETTINGS, asked(span(0)), SIGNATURE)


def test_a_users_job_gets_the_newest_labelled_rows() -> None:
    log = Log()
    settings = SETTINGS.model_copy(update={"worker": WorkerConfig(max_rows=100)})
    for number in range(3000):
        log.predict(number)
        if number < 200:
            log.label(number)
    found = read_rows(log.transport, settings, asked(), SIGNATURE)
    assert found.rows.offsets.tolist() == list(range(100, 200))
    assert found.span == RowRange(partition=PARTITION, start_offset=100, labels_start_offset=0, end_offset=200)
    assert len(read_rows(log.transport, settings, asked(span(0)), SIGNATURE).rows) == 100


def test_numbers_for_regression_and_no_rows_at_all() -> None:
    log = Log()
    regression = Signature(task="regression", features=("a", "b"))
    for number, label in enumerate((1.5, "no", True, 3)):
        log.predict(number)
        log.label(number, label)
    assert read_rows(log.transport, SETTINGS, asked(span(0)), regression).rows.labels.tolist() == [1.5, 3.0]
    empty = read_rows(log.transport, SETTINGS, asked(span(4)), regression).rows
    assert (len(empty), empty.features.shape) == (0, (0, 2))
