"""What the SDK acknowledges the monitor admits, and what is plainly valid the SDK takes; each kind of value is refused with its rule."""

import datetime as dt
import math
import subprocess
import sys
import time
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from driftloop.detectors.model import is_whole
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import decode
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.schemas.layouts import MAX_VERSION
from driftloop.streams.client import RecordingClient
from driftloop.streams.client_events import UnknownField, label_value, prediction_value
from driftloop.tests.monitor_logs import play, record

NOW = time.time()
FORMS = ("packed", "json")
GOOD: dict[str, Any] = {"output": 1, "features": {"a": 1.0}}


def refusals(topic: str, model: str, value: bytes) -> list[str]:
    """Return why a fresh monitor refuses a record of the SDK."""
    monitor = Monitor(MonitorConfig(), "d.", 0)
    effects = play(monitor, [record(topic, 0, int(time.time() * 1000), model.encode(), value)], 1)
    monitor.take_dirty()
    return [f"{letter.disposition}: {letter.message}" for letter in effects.dead_letters]


numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.sampled_from([10**39, -(10**400), 2**53 + 1, 2**63, 2**64, 1e39, -3.5e38, 3.4028235e38, 5e-324]),
    st.floats(),
    st.sampled_from([np.float32(1.5), np.float64("nan"), np.int64(7), np.uint64(2**64 - 1), np.float16(2), np.True_]),
    st.decimals(),
)
texts = st.one_of(st.text(max_size=12), st.sampled_from(["", "x" * 256, "x" * 257, "\u00fc" * 129, "\ud800", "a\nb", "\x00"]))
odd = st.sampled_from([None, b"raw", [1], {}, object(), 1j, dt.date(2026, 1, 1), np.datetime64("2026-01-01"), np.array([1, 2])])
anything = st.one_of(numbers, st.booleans(), texts, odd)
models = st.one_of(
    st.sampled_from(["m", "a.b-c_D9", "x" * 200, "x" * 201, "", "fraud model", "team/x", "gr\u00f6\u00dfe", "m\n"]), texts, odd
)
idents = st.one_of(texts, st.sampled_from(["i" * 256, "i" * 257, "\u00fc" * 256, np.str_("i")]), odd)
cells = st.one_of(numbers, st.booleans(), texts, st.none(), odd)
named = st.dictionaries(st.one_of(texts, st.integers(0, 3), st.none()), cells, max_size=4)
listed = st.lists(cells, max_size=4)
times = st.one_of(
    st.none(),
    st.sampled_from([NOW, NOW * 1e3, NOW * 1e6, NOW + 299, NOW + 400, 0, -1.0, 946_684_799.9, 946_684_800]),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5.5))])),
    st.sampled_from([np.datetime64("2026-01-01"), np.datetime64("2026-01-01T00:00:00.5", "ns"), np.datetime64("NaT")]),
    anything,
)
wild = {
    "model": models,
    "prediction_id": idents,
    "output": anything,
    "version": st.one_of(st.integers(-1, 2), st.sampled_from([MAX_VERSION, MAX_VERSION + 1, np.int64(1), np.uint8(0)]), anything),
    "features": st.one_of(
        named, listed, listed.map(tuple), st.sampled_from([np.zeros(3), np.zeros((1, 2)), np.zeros((2, 2)), [0.5] * 2001])
    ),
    "scores": st.one_of(st.none(), st.lists(numbers, max_size=3), anything),
    "segment": st.one_of(st.none(), texts, anything),
    "latency_ms": anything,
    "ts": times,
    "feature": st.just({"a": 1.0}),
}


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Return the arguments of a call, one or two of them out of the ordinary."""
    changed = draw(st.lists(st.sampled_from(sorted(wild)), min_size=1, max_size=2, unique=True))
    return {"model": "m", "prediction_id": "i", "output": 1, "features": {"a": 1.0}} | {name: draw(wild[name]) for name in changed}


@settings(max_examples=600, deadline=None)
@given(arguments(), st.sampled_from(FORMS))
def test_the_monitor_admits_what_the_sdk_takes(said: Any, form: Any) -> None:
    model, ident = said.pop("model"), said.pop("prediction_id")
    try:
        value = prediction_value(model, ident, said, form)
    except EventInvalid:
        return
    event = decode(value, PredictionMade, "here")
    # Whether a number beside scores is a class or a regression's is known to the model's registration alone.
    assume(event.scores is None or is_whole(event.output) or not isinstance(event.output, float | int))
    assert refusals("predictions", model, value) == []


@settings(max_examples=300, deadline=None)
@given(arguments(), st.one_of(anything, st.none()), st.sampled_from(FORMS))
def test_the_monitor_admits_the_labels_that_the_sdk_takes(said: Any, label: Any, form: Any) -> None:
    model, ident, ts = said["model"], said["prediction_id"], said.get("ts")
    try:
        value = label_value(LabelArrived(model=model, prediction_id=ident, label=label, ts=ts), form)
    except EventInvalid:
        return
    assert refusals("labels", model, value) == []


plain_texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)
plain_numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(-3.4e38, 3.4e38))
plain_cells = st.one_of(plain_numbers, plain_texts, st.booleans(), st.none(), st.just(math.nan))
plain_fields = st.fixed_dictionaries(
    {"output": st.one_of(plain_numbers, plain_texts, st.booleans())},
    optional={
        "version": st.integers(1, MAX_VERSION),
        "features": st.one_of(st.dictionaries(plain_texts, plain_cells, max_size=9), st.lists(plain_cells, max_size=9)),
        "segment": plain_texts,
        "latency_ms": st.floats(0, 1e6),
        "ts": st.floats(946_684_800, NOW),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"\A[A-Za-z0-9._-]{1,200}\Z"), plain_texts, plain_fields, st.sampled_from(FORMS))
def test_the_sdk_takes_what_is_plainly_valid(model: str, ident: str, said: Any, form: Any) -> None:
    event = decode(prediction_value(model, ident, said, form), PredictionMade, "here")
    assert (event.model, event.prediction_id, event.output, event.version) == (model, ident, said["output"], said.get("version", 1))
    assert refusals("predictions", model, prediction_value(model, ident, said, form)) == []


def test_scores_of_every_form() -> None:
    client = RecordingClient()
    for scores in (
        [0.25, 0.75],
        (0.25, 0.75),
        np.array([0.25, 0.75]),
        np.array([[0.25, 0.75]], np.float32),
        [np.float32(0.25), 0.75],
    ):
        client.log_prediction("m", output=1, scores=scores)
    assert {tuple(event.scores or ()) for event in client.events if isinstance(event, PredictionMade)} == {(0.25, 0.75)}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("fraud model", {}, "model must be 1 to 200 of"),
    ("team/fraud", {}, "model must be 1 to 200 of"),
    ("betr\u00fcg", {}, "model must be 1 to 200 of"),
    ("m" * 201, {}, "model must be 1 to 200 of"),
    ("m", {"version": 0}, "version must be 1 to"),
    ("m", {"version": MAX_VERSION + 1}, "version must be 1 to"),
    ("m", {"version": True}, "version must be a whole number"),
    ("m", {"version": np.True_}, "version must be a whole number"),
    ("m", {"version": 1.0}, "version must be a whole number"),
    ("m", {"version": "1.2.3"}, "version must be a whole number"),
    ("m", {"prediction_id": "i" * 257}, "prediction_id must be 1 to 256"),
    ("m", {"output": ""}, "output must be 1 to 256 bytes"),
    ("m", {"output": "x" * 257}, "output must be 1 to 256 bytes"),
    ("m", {"output": 2**64}, "output must be"),
    ("m", {"features": [10**39]}, "features must be finite and within float32"),
    ("m", {"features": {"a": -(10**400)}}, "features must be finite and within float32"),
    ("m", {"features": [1.0] * 2001}, "features must be at most 2000"),
    ("m", {"features": {f"{n:0200d}": 1.0 for n in range(1500)}}, "feature names must be at most"),
    ("m", {"features": {"a": np.datetime64("2026-01-01")}}, "features must be numbers"),
    ("m", {"features": [1 + 2j]}, "features must be numbers"),
    ("m", {"ts": NOW * 1000}, "ts must be at most"),
    ("m", {"ts": NOW * 1e6}, "ts must be at most"),
    ("m", {"ts": 0.0}, "ts must be seconds"),
    ("m", {"scores": [1e39]}, "scores must be finite"),
    ("m", {"scores": {"a": 1.0}}, "scores must be a list"),
    ("m", {"latency_ms": 1e39}, "latency_ms must be finite"),
    ("m", {"segment": "x" * 1_000_000}, "value must be at most"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("model", "change", "rule"), REFUSED, ids=[f"{rule}-{at}" for at, (_, _, rule) in enumerate(REFUSED)])
def test_what_the_monitor_would_refuse_is_refused_with_its_rule(model: str, change: dict[str, Any], rule: str, form: Any) -> None:
    said: Any = GOOD | change
    with pytest.raises(EventInvalid, match=rule):
        prediction_value(model, said.get("prediction_id", "i"), said, form)


@pytest.mark.parametrize("version", [np.int64(3), np.uint8(3), np.array(3), 3])
def test_whole_numbers_of_numpy_are_versions(version: Any) -> None:
    client = RecordingClient()
    client.log_prediction("m", version=version, output=1)
    (event,) = client.events
    assert isinstance(event, PredictionMade)
    assert event.version == 3


def test_a_typing_error_in_a_keyword_is_noticed() -> None:
    said: Any = {"output": 1, "feature": {"a": 1.0}}
    with pytest.raises(UnknownField, match="'feature': did you mean 'features'"):
        prediction_value("m", "i", said, "packed")
    assert issubclass(UnknownField, TypeError)
    with pytest.raises(EventInvalid, match="output must be given"):
        prediction_value("m", "i", {}, "packed")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("ts", "seconds"),
    [
        (dt.datetime(2026, 1, 1), 1_767_225_600.0),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), 1_767_225_600.0),
        (dt.datetime(2026, 1, 1, 5, 30, tzinfo=dt.timezone(dt.timedelta(hours=5.5))), 1_767_225_600.0),
        (np.datetime64("2026-01-01T00:00:00.5"), 1_767_225_600.5),
        (np.datetime64("2026-01-01", "ns"), 1_767_225_600.0),
        (Decimal("1767225600.5"), 1_767_225_600.5),
        (np.int64(1_767_225_600), 1_767_225_600.0),
    ],
)
def test_times_of_every_form(ts: Any, seconds: float) -> None:
    client = RecordingClient()
    client.log_label("m", client.log_prediction("m", output=1, ts=ts), 1, ts=ts)
    assert [event.ts for event in client.events] == [seconds, seconds]


def test_times_without_a_zone_give_the_same_bytes_everywhere() -> None:
    program = """
import datetime, driftloop, numpy
from driftloop.streams.client_events import prediction_value
for ts in (datetime.datetime(2026, 7, 1, 12), datetime.datetime(2026, 1, 1, 2, 30), numpy.datetime64("2026-07-01T12:00")):
    print(prediction_value("m", "i", {"output": 1, "ts": ts}, "json"))
"""
    outputs = set()
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        done = subprocess.run([sys.executable, "-c", program], env={"TZ": zone}, capture_output=True, text=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_ids_that_are_texts_of_another_type_are_taken() -> None:
    client = RecordingClient()
    client.log_prediction(np.str_("m"), output=np.str_("yes"), prediction_id=np.str_(uuid.UUID(int=0)), segment=np.str_("s"))
    (event,) = client.events
    assert (event.model, event.prediction_id) == ("m", str(uuid.UUID(int=0)))


def test_a_client_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'faust', 'river', 'onnx', 'scipy', 'pandas'}"
    code = f"import driftloop, sys; driftloop.Client; sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"
