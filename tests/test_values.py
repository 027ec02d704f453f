"""The one table of values: every kind in every role, whatever library it comes from, and the same through each door."""

import enum
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from driftloop.detectors.monitor import Monitor
from driftloop.schemas import values
from driftloop.schemas.codecs import encode_json, encode_msgpack
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.schemas.records import Batch, Slice

STAMP_MS = 1_750_000_000_000
REFUSED = EventInvalid


class Colour(str, enum.Enum):  # noqa: UP042 - str() of such a member is its name, which is the trap
    RED = "red"


class NAType:
    """Stand for pandas' missing value, which is neither equal to anything nor true."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]


# value -> what it is as feature, output, label, version
TABLE: list[tuple[Any, Any, Any, Any, Any]] = [
    (None, None, REFUSED, None, REFUSED),
    (NAType(), None, REFUSED, None, REFUSED),
    (True, 1.0, True, True, REFUSED),
    (np.True_, 1.0, True, True, REFUSED),
    (np.False_, 0.0, False, False, REFUSED),
    (3, 3.0, 3, 3, 3),
    (0, 0.0, 0, 0, REFUSED),
    (-1, -1.0, -1, -1, REFUSED),
    (2**31, float(2**31), 2**31, 2**31, REFUSED),
    (np.int64(3), 3.0, 3, 3, 3),
    (np.array([3]), 3.0, 3, 3, 3),
    (np.uint64(2**64 - 1), float(2**64), 2**64 - 1, 2**64 - 1, REFUSED),
    (2**64, float(2**64), REFUSED, REFUSED, REFUSED),
    (-(2**63) - 1, -float(2**63), REFUSED, REFUSED, REFUSED),
    (10**400, REFUSED, REFUSED, REFUSED, REFUSED),
    (0.5, 0.5, 0.5, 0.5, REFUSED),
    (np.float32(0.5), 0.5, 0.5, 0.5, REFUSED),
    (np.longdouble(0.5), 0.5, 0.5, 0.5, REFUSED),
    (np.float16(0.5), 0.5, 0.5, 0.5, REFUSED),
    (1e39, REFUSED, REFUSED, REFUSED, REFUSED),
    (math.nan, None, REFUSED, REFUSED, REFUSED),
    (np.float32("nan"), None, REFUSED, REFUSED, REFUSED),
    (Decimal("NaN"), None, REFUSED, REFUSED, REFUSED),
    (math.inf, REFUSED, REFUSED, REFUSED, REFUSED),
    (Decimal("Infinity"), REFUSED, REFUSED, REFUSED, REFUSED),
    (Decimal("2"), 2.0, 2, 2, 2),
    (Decimal("2.5"), 2.5, 2.5, 2.5, REFUSED),
    (Fraction(1, 2), 0.5, 0.5, 0.5, REFUSED),
    ("north", "north", "north", "north", REFUSED),
    (np.str_("north"), "north", "north", "north", REFUSED),
    (Colour.RED, "red", "red", "red", REFUSED),
    (datetime(2024, 5, 1), REFUSED, REFUSED, REFUSED, REFUSED),
    (date(2024, 5, 1), REFUSED, REFUSED, REFUSED, REFUSED),
    (timedelta(1), REFUSED, REFUSED, REFUSED, REFUSED),
    (np.datetime64("2024-05-01"), REFUSED, REFUSED, REFUSED, REFUSED),
    (np.datetime64("2024-05-01", "ns"), REFUSED, REFUSED, REFUSED, REFUSED),
    (np.timedelta64(5, "ns"), REFUSED, REFUSED, REFUSED, REFUSED),
    (Decimal("1e999999999"), REFUSED, REFUSED, REFUSED, REFUSED),
    (Decimal("sNaN"), None, REFUSED, REFUSED, REFUSED),
    (Fraction(10**400, 3), REFUSED, REFUSED, REFUSED, REFUSED),
    (b"north", REFUSED, REFUSED, REFUSED, REFUSED),
    (1j, REFUSED, REFUSED, REFUSED, REFUSED),
    (np.complex64(1), REFUSED, REFUSED, REFUSED, REFUSED),
    ([1], REFUSED, REFUSED, REFUSED, REFUSED),
    (np.array([1, 2]), REFUSED, REFUSED, REFUSED, REFUSED),
    ({"a": 1}, REFUSED, REFUSED, REFUSED, REFUSED),
]


@pytest.mark.parametrize(("value", "feature", "output", "label", "version"), TABLE, ids=lambda value: repr(value)[:30])
def test_every_kind_of_value_in_every_role(value: Any, feature: Any, output: Any, label: Any, version: Any) -> None:
    doors = {values.feature: feature, values.output: output, values.label: label, values.version: version}
    for door, expected in doors.items():
        if expected is REFUSED:
            with pytest.raises(EventInvalid) as refusal:
                door(value)
            assert refusal.value.disposition in ("invalid", "non_finite")
            assert " must " in str(refusal.value)
            assert len(str(refusal.value)) < 250
        else:
            found = door(value)
            assert found == expected
            assert type(found) is type(expected)


def test_the_table_has_an_answer_for_every_kind_and_role() -> None:
    roles = {"feature", "output", "label", "version"}
    assert all(set(row) == roles for row in values.MEANINGS.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *[(word, True) for word in ("True", "true", "TRUE", " true ")],
        *[(word, False) for word in ("False", "false", "FALSE")],
        *[(word, None) for word in ("", " ", "NA", "NaN", "null", "None", "<NA>", "NaT")],
        *[("7", 7), ("7.5", 7.5), ("-1e3", -1000.0), ("yes", "yes"), ("1_000", "1_000"), ("9" * 5_000, math.inf)],
    ],
)
def test_cells_of_a_table_say_the_same_in_every_role(text: str, found: Any) -> None:
    assert values.cell(text) == found
    assert type(values.cell(text)) is type(found)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_a_time_without_a_zone_is_utc_on_every_machine(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        wanted = datetime(2024, 5, 1, 8, tzinfo=UTC).timestamp()
        ahead = timezone(timedelta(hours=5, minutes=30))
        for told in (datetime(2024, 5, 1, 8), datetime(2024, 5, 1, 13, 30, tzinfo=ahead), np.datetime64("2024-05-01T08:00")):
            assert values.time_of(told) == wanted
        assert values.time_of(np.datetime64("2024-05-01T08:00:00", "ns")) == wanted
        assert values.time_of(np.float32(5.0)) == 5.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("wrong", [True, "2024-05-01", None, date(2024, 5, 1), timedelta(1), math.nan, np.datetime64("NaT")])
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(EventInvalid, match="ts must be"):
        values.time_of(wrong)


def predictions(form: Any, features: list[Any]) -> Batch:
    """Return predictions of one model with these features."""
    made = [PredictionMade(model="m", version=1, prediction_id=str(at), output=1, features=one) for at, one in enumerate(features)]
    count = len(made)
    return Batch(predictions=Slice([form(one) for one in made], [b"m"] * count, list(range(count)), [STAMP_MS] * count))


@pytest.mark.parametrize("form", [encode_json, encode_msgpack], ids=["json", "msgpack"])
@pytest.mark.parametrize("shape", [dict, list])
def test_true_and_false_are_one_and_zero_for_the_monitor(form: Any, shape: Any) -> None:
    spoken: list[Any] = [{"a": 0.5, "card": at % 2 == 0} for at in range(40)]
    plain: list[Any] = [{"a": 0.5, "card": float(at % 2 == 0)} for at in range(40)]
    if shape is list:
        spoken, plain = [list(one.values()) for one in spoken], [list(one.values()) for one in plain]
    seen = []
    for features in (spoken, plain):
        monitor = Monitor(MonitorConfig(), "d.", 0)
        effects = monitor.process(predictions(form, features))
        assert effects.counters["admitted"] == 40
        assert not effects.dead_letters
        assert not any(monitor.table.counts(0).values())
        seen.append(monitor.watch.take_dirty())
    assert seen[0] == seen[1]


HUGE = [2**64, -(2**63) - 1, 10**30, 10**400]


@pytest.mark.parametrize("number", HUGE, ids=["2**64", "-2**63-1", "10**30", "10**400"])
def test_a_whole_number_beyond_64_bits_is_a_dead_letter_as_output_and_as_label(number: int) -> None:
    def letter(predictions: list[dict[str, Any]], labels: list[dict[str, Any]]) -> list[tuple[str, str]]:
        monitor = Monitor(MonitorConfig(), "d.", 0)
        slices = [
            Slice([json.dumps(one).encode() for one in some], [b"m"] * len(some), list(range(len(some))), [STAMP_MS] * len(some))
            for some in (predictions, labels)
        ]
        effects = monitor.process(Batch(predictions=slices[0], labels=slices[1]))
        parts = {name: data for name, data in monitor.take_dirty().items() if data is not None}
        Monitor.restore(MonitorConfig(), "d.", 0, parts)
        Monitor.from_snapshot(MonitorConfig(), "d.", 0, monitor.snapshot())
        return [(one.topic, one.disposition) for one in effects.dead_letters]

    sound = {"model": "m", "version": 1, "prediction_id": "a", "features": {"x": 1.0}, "output": 1}
    label = {"model": "m", "prediction_id": "a", "label": number}
    refused = "invalid" if number < 3e38 else "non_finite"
    assert letter([], [label]) == [("d.labels", refused)]
    assert letter([sound], [label]) == [("d.labels", refused)]
    assert letter([sound | {"output": number, "scores": [0.5, 0.5]}], []) == [("d.predictions", refused)]
    assert letter([sound, sound | {"output": number, "prediction_id": "b"}], [label]) == [
        ("d.predictions", refused),
        ("d.labels", refused),
    ]


@pytest.mark.parametrize("number", [2**64 - 1, 2**63, -(2**63), 2**53 + 1])
def test_a_whole_number_of_64_bits_is_held_exactly(number: int) -> None:
    monitor = Monitor(MonitorConfig(), "d.", 0)
    label = encode_json(LabelArrived(model="m", prediction_id="a", label=number))
    effects = monitor.process(Batch(labels=Slice([label], [b"m"], [0], [STAMP_MS])))
    assert not effects.dead_letters
    parts = {name: data for name, data in monitor.take_dirty().items() if data is not None}
    again = Monitor.restore(MonitorConfig(), "d.", 0, parts)
    assert [one.value for one in again.early._held.values()] == [number]
