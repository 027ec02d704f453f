"""Admission: the rules, and what is taken in although it looks odd."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from driftloop.detectors.admission import Admission, label_problem, shown
from driftloop.detectors.columns import InputRows, JoinedRows
from driftloop.detectors.model import Model
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import PackedPrediction, encode_msgpack, pack_features
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import Signature
from driftloop.schemas.values import seconds
from driftloop.tests.monitor_logs import START_MS, batch_of, record, small

T = START_MS / 1000


class Seen:
    """Take the place of the watch and keep the columns."""

    def __init__(self) -> None:
        self.refused: list[tuple[int, str, str]] = []
        self.inputs: list[InputRows] = []
        self.joined: list[JoinedRows] = []

    def observe(self, inputs: InputRows, joined: JoinedRows) -> list[Any]:
        self.inputs.append(inputs)
        self.joined.append(joined)
        return []


def admit(*values: Any) -> tuple[Monitor, Seen, list[Any]]:
    """Return what becomes of predictions of the model m."""
    monitor, seen = Monitor(small(), "driftloop.", 0), Seen()
    monitor.watch = seen  # type: ignore[assignment]
    log = [record("predictions", at, START_MS + at, b"m", value) for at, value in enumerate(values)]
    return monitor, seen, monitor.process(batch_of(log)).dead_letters


def made(ident: str, **changes: Any) -> dict[str, Any]:
    return {"model": "m", "version": 1, "prediction_id": ident, "output": 1, "features": {"a": 1, "b": 2.5}} | changes


def test_every_encoding_gives_the_same_columns() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": made("ce", ts=T)}
    packed = PackedPrediction("m", 1, "packed", T, 1, pack_features([1, 2.5]))
    named = PackedPrediction("m", 1, "named", T, 1, pack_features([2.5, 1]), "b\na")
    values = [
        *(made("json", ts=T), made("list", ts=T, features=[1, 2.5]), made("date", ts="2023-11-14T22:13:20Z")),
        *(made("naive", ts="2023-11-14T22:13:20"), event, msgspec.msgpack.encode(made("map", ts=T))),
        *(encode_msgpack(packed), encode_msgpack(named), b"\n " + json.dumps(made("spaces", ts=T)).encode()),
        made("tagged", ts=T, type="prediction_made", later_field={"x": [1]}),
    ]
    monitor, seen, letters = admit(*values)
    assert not letters
    rows = seen.inputs[0]
    assert rows.groups[0].names == ("a", "b")
    np.testing.assert_array_equal(rows.groups[0].values, [[1, 2.5]] * len(values))
    np.testing.assert_array_equal(rows.ts, [T] * len(values))
    np.testing.assert_array_equal(rows.offset, range(len(values)))
    assert monitor.table.counts(0)["unknown_fields"] == 1


def test_missing_values_and_fields_are_nan() -> None:
    packed = PackedPrediction("m", 1, "packed", T, 1, pack_features([None, 2]))
    values = [
        made("first", latency_ms=3, scores=[0.25, 0.75]),
        made("null", features={"a": None, "b": 2}),
        made("gone", features={"b": 2}),
    ]
    monitor, seen, letters = admit(*values, made("extra", features={"b": 2, "c": 3}), encode_msgpack(packed))
    assert not letters
    rows = seen.inputs[0]
    np.testing.assert_array_equal(rows.groups[0].values[1:], [[np.nan, 2]] * 4)
    np.testing.assert_array_equal(rows.latency_ms, [3] + [np.nan] * 4)
    np.testing.assert_array_equal(rows.confidence, [0.75] + [np.nan] * 4)
    np.testing.assert_array_equal(rows.ts[:4], [(START_MS + at) / 1000 for at in range(4)])
    assert monitor.table.counts(0)["misplaced_features"] == 1


def test_categories_are_no_numbers() -> None:
    values = [
        made("1", features={"a": "x", "b": 1}),
        made("2", features={"a": "y", "b": "z"}),
        made("3", features={"a": 4, "b": 3}),
    ]
    monitor, seen, letters = admit(*values)
    assert not letters
    group = seen.inputs[0].groups[0]
    np.testing.assert_array_equal(group.numeric, [False, True])
    np.testing.assert_array_equal(group.values[:, 1], [1, np.nan, 3])
    assert monitor.table.counts(0)["misplaced_features"] == 1


def test_models_with_equal_names_are_one_group() -> None:
    monitor, seen = Monitor(small(), "driftloop.", 0), Seen()
    monitor.watch = seen  # type: ignore[assignment]
    log = []
    for at in range(12):
        name = f"m{at % 4}"
        features = {"a": at, "b": 1} if at % 4 else {"z": at}
        log.append(record("predictions", at, START_MS, name.encode(), made(str(at), model=name, features=features)))
    monitor.process(batch_of(log))
    groups = seen.inputs[0].groups
    assert sorted(group.names for group in groups) == [("a", "b"), ("z",)]
    for group in groups:
        np.testing.assert_array_equal(group.values[:, 0], group.rows)


def test_strange_feature_names_are_names() -> None:
    features = {'quo"te': 1, "line\nbreak": 2, "": 3, "null\x00": 4}
    monitor, seen, letters = admit(made("1", features=features), made("2", features=features))
    assert not letters
    assert monitor.table.names(0) == tuple(features)
    np.testing.assert_array_equal(seen.inputs[0].groups[0].values, [[1, 2, 3, 4]] * 2)


def test_wide_scores_give_a_confidence_alone() -> None:
    _, seen, letters = admit(made("wide", scores=[0.0] * 99 + [1.0]))
    assert not letters
    assert seen.inputs[0].confidence[0] == 1.0


def test_joined_columns_carry_the_prediction() -> None:
    monitor, seen = Monitor(small(), "driftloop.", 0), Seen()
    monitor.watch = seen  # type: ignore[assignment]
    log = [record("predictions", 5, START_MS, b"m", made("x", output="no", scores=[0.75, 0.25], version=3, ts=T))]
    log.append(record("labels", 9, START_MS + 1, b"m", {"model": "m", "prediction_id": "x", "label": "yes"}))
    monitor.process(batch_of(log))
    joined = seen.joined[0]
    assert (joined.order[0], joined.model[0], joined.version[0], joined.prediction_offset[0], joined.label_offset[0]) == (
        1,
        0,
        3,
        5,
        9,
    )
    assert (joined.ts[0], joined.output[0], joined.label[0], joined.error[0], joined.scores.tolist()) == (
        T,
        0,
        1,
        1,
        [[0.75, 0.25]],
    )


@pytest.mark.parametrize(
    ("ts", "disposition"), [(T + 300.5, "future"), (-1.0, "invalid"), (946_684_799.0, "invalid"), (float("nan"), "non_finite")]
)
def test_times_are_checked_against_the_record(ts: float, disposition: str) -> None:
    with pytest.raises(EventInvalid, match="ts must be") as caught:
        Admission(MonitorConfig()).time(ts, START_MS)
    assert caught.value.disposition == disposition
    Admission(MonitorConfig()).time(T + 299.5, START_MS)
    Admission(MonitorConfig()).time(None, START_MS)


def test_a_record_without_a_time_stamp_has_no_future() -> None:
    Admission(MonitorConfig()).time(T, -1)


def test_the_message_says_that_the_key_must_be_the_name() -> None:
    with pytest.raises(EventInvalid, match="key must be the model's name 'm', got None"):
        Admission(MonitorConfig()).name("m", None)


def test_a_time_without_a_zone_is_utc() -> None:
    assert seconds(datetime(2024, 1, 1)) == seconds(datetime(2024, 1, 1, tzinfo=UTC)) == 1_704_067_200.0


def test_what_is_shown_of_a_value_is_short() -> None:
    assert shown(10**5000) == "a whole number of 16610 bits"
    assert len(shown("x" * 500)) == 80


@pytest.mark.parametrize(("value", "fits"), [(1, True), (2.0, True), (1.5, False), ("1", False), (True, False), (2**60, False)])
def test_labels_fit_the_kind_of_the_outputs(value: Any, fits: bool) -> None:
    assert (label_problem(value, Model("m", kind="number")) is None) == fits


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        ({"b": ("red",)}, "must be of its features, got 'b'"),
        ({"a": ("red", "red")}, "of 'a' must be distinct texts"),
        ({"a": tuple(f"{at:0200}" for at in range(2_000))}, "at most 262144 bytes together"),
    ],
)
def test_categories_of_a_signature_are_distinct_texts_of_its_features(categories: dict[str, tuple[str, ...]], says: str) -> None:
    rules, signature = Admission(MonitorConfig()), Signature(task="regression", features=("a",), categories={"a": ("red", "blue")})
    rules.signature(signature)
    with pytest.raises(EventInvalid, match=says):
        rules.signature(msgspec.structs.replace(signature, categories=categories))
