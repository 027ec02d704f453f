"""Rows of a job: joined, ordered, bounded, and only the asked-for ones."""

import tracemalloc

import msgspec
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


def test_categories_become_their_places() -> None:
    log, signature = Log(), msgspec.structs.replace(SIGNATURE, categories={"a": ("red", "blue")})
    given: list[dict[str, FeatureValue] | list[FeatureValue]] = [
        {"a": "blue", "b": 1.0},
        ["red", 2.0],
        {"b": 3.0},
        {"a": "pink"},
        ["red"],
        {"c": 1.0},
    ]
    for number, features in enumerate(given):
        log.predict(number, features)
        log.label(number)
    found = read_rows(log.transport, SETTINGS, asked(span(0)), signature)
    wanted = np.array([[1.0, 1.0], [0.0, 2.0], [np.nan, 3.0], [-1.0, np.nan]], np.float32)
    np.testing.assert_array_equal(found.rows.features, wanted)
    assert found.dropped == {"with the wrong number of features": 2}
    log.predict(9, {"a": "red", "b": "text"})
    log.label(9)
    with pytest.raises(JobError, match="got text in 'b'"):
        read_rows(log.transport, SETTINGS, asked(span(0)), signature)


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


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("start_offset", -1001),
        ("start_offset", -2),
        ("labels_start_offset", -1),
        ("end_offset", -5),
        ("reference_start_offset", -(2**62)),
    ],
)
def test_a_range_of_negative_offsets_is_refused(name: str, offset: int) -> None:
    log = Log()
    log.predict(0)
    log.label(0)
    with pytest.raises(JobError, match=f"{name} must be an offset from 0"):
        read_rows(log.transport, SETTINGS, asked(msgspec.structs.replace(span(0), **{name: offset})), SIGNATURE)


@pytest.mark.parametrize("partition", [-1, 4, 2**40])
def test_a_range_of_no_partition_is_refused(partition: int) -> None:
    with pytest.raises(JobError, match="partition must be 0 to 3"):
        read_rows(Log().transport, SETTINGS, asked(msgspec.structs.replace(span(0), partition=partition)), SIGNATURE)


def bounded(max_row_bytes: int) -> Settings:
    return SETTINGS.model_copy(update={"worker": WorkerConfig(max_row_bytes=max_row_bytes)})


def test_rows_that_pass_the_bound_of_bytes_give_way_to_newer_ones() -> None:
    log, width = Log(), 500
    wide = Signature(task="classification", features=tuple(f"f{n}" for n in range(width)), classes=("no", "yes"))
    for number in range(600):
        log.predict(number, [float(number)] * width)
        log.label(number)
    found = read_rows(log.transport, bounded(1024 * 1024), asked(span(300, reference=0)), wide)
    fitting = 1024 * 512 // (4 * width + 24)
    assert len(found.rows) == fitting < 300
    assert found.rows.offsets.tolist() == list(range(600 - fitting, 600))
    np.testing.assert_array_equal(found.rows.features[:, 7], np.arange(600 - fitting, 600, dtype=np.float32))
    assert found.old_rows is not None
    assert found.old_rows.offsets.tolist() == list(range(300 - fitting // 2, 300))


def test_labels_of_unknown_ids_take_no_more_memory_than_their_share() -> None:
    log = Log()
    log.predict(0)
    for number in range(20_000):
        log.raw("labels", encode_json(LabelArrived(model="m", prediction_id=f"unknown-{number:040d}", label="yes")))
    log.label(0)
    settings = bounded(1024 * 1024)
    tracemalloc.start()
    found = read_rows(log.transport, settings, asked(span(0)), SIGNATURE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.rows.offsets.tolist() == [0]
    assert found.dropped["whose label gave way to newer ones (worker.max_row_bytes)"] > 19_000
    # What 5,000 records read at once take is beside it.
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize("bound_bytes", [1024 * 1024, 4 * 1024 * 1024])
def test_the_memory_for_rows_and_labels_is_at_most_twice_the_bound(bound_bytes: int) -> None:
    """Both kinds of rows and the labels fill their shares, and what was read first gave way, so that rows are put in order last."""
    log, width = Log(), 400
    wide = Signature(task="classification", features=tuple(f"f{n}" for n in range(width)), classes=("no", "yes"))
    packed, names = pack_features([0.5] * width), "\n".join(wide.features)
    new, old = (bound_bytes // share // (4 * width + 24) for share in (2, 4))
    labelled = [*range(3_000 - old - 30, 3_000), *range(6_000 - new - 30, 6_000)]
    for number in range(6_000):
        log.raw("predictions", encode_msgpack(PackedPrediction("m", 1, f"p{number}", 1_700_000_000.0, "no", packed, names)))
    for number in range(30_000):
        log.raw("labels", encode_json(LabelArrived(model="m", prediction_id=f"unknown-{number:040d}", label="yes")))
    for number in labelled:
        log.label(number)
    tracemalloc.start()
    found = read_rows(log.transport, bounded(bound_bytes), asked(span(3_000, reference=0)), wide)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.old_rows is not None
    assert (len(found.rows), len(found.old_rows)) == (new, old)
    assert bound_bytes // 2 < peak < 2 * bound_bytes


def test_too_many_features_for_the_bound_end_the_job_with_the_setting_to_raise() -> None:
    wide = Signature(task="regression", features=tuple(f"f{n}" for n in range(3_000)))
    with pytest.raises(JobError, match=r"worker\.max_row_bytes"):
        read_rows(Log().transport, bounded(1024 * 1024), asked(span(0)), wide)


def test_reading_can_be_given_up() -> None:
    log = Log()
    log.predict(0)

    def tick() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        read_rows(log.transport, SETTINGS, asked(span(0)), SIGNATURE, tick)


def test_what_the_monitor_would_refuse_is_no_row() -> None:
    log = Log()
    regression = Signature(task="regression", features=("a", "b"))
    for number in range(3):
        log.predict(number)
    log.raw("labels", b'{"type":"label_arrived","model":"m","prediction_id":"p0","label":1' + b"0" * 400 + b"}")
    log.label(1, "x" * 10_000)
    log.label(2, 1.5)
    found = read_rows(log.transport, SETTINGS, asked(span(0)), regression)
    assert found.rows.offsets.tolist() == [2]
