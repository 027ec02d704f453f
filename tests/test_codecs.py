"""Codecs: every encoding of an event, and what is none."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.schemas.codecs import PackedLabel, PackedPrediction, decode, encode_json, encode_msgpack, pack_features, type_name
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import DriftEvent, LabelArrived, ModelEvent, ModelRegistered, PredictionMade, Signature

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
PREDICTIONS = st.builds(
    PredictionMade,
    model=st.text(),
    version=st.integers(1, 2**31 - 1),
    prediction_id=st.text(),
    output=st.integers(-(2**53), 2**53) | FLOATS | st.text() | st.booleans(),
    features=st.dictionaries(st.text(), st.none() | FLOATS | st.text(), max_size=5)
    | st.lists(st.none() | FLOATS | st.text(), max_size=5),
    ts=st.none() | FLOATS,
    scores=st.none() | st.lists(FLOATS, max_size=4),
    segment=st.none() | st.text(),
    latency_ms=st.none() | FLOATS,
)


@given(PREDICTIONS)
def test_a_prediction_comes_back_from_json_and_msgpack(event: PredictionMade) -> None:
    assert decode(encode_json(event), PredictionMade, "here") == event
    assert decode(encode_msgpack(event), PredictionMade, "here") == event


@given(st.lists(st.none() | FLOATS, max_size=6), st.booleans())
def test_packed_features_come_back(values: list[float | None], named: bool) -> None:
    names = [f"f{at}" for at in range(len(values))]
    packed = PackedPrediction("m", 1, "x", 5.0, 1, pack_features(values), "\n".join(names) if named else "")
    event = decode(encode_msgpack(packed), PredictionMade, "here")
    assert event.features == (dict(zip(names, values, strict=True)) if named and names else values)


def test_labels_come_back() -> None:
    for value in (1, 0.5, "x", True, None):
        event = LabelArrived(model="m", prediction_id="x", label=value)
        for data in (encode_json(event), encode_msgpack(event), encode_msgpack(PackedLabel("m", "x", value))):
            assert decode(data, LabelArrived, "here") == event


def test_a_structured_cloud_event_is_its_data() -> None:
    event = LabelArrived(model="m", prediction_id="x", label=1)
    wrapped = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + encode_json(event) + b"}"
    assert decode(wrapped, LabelArrived, "here") == event


def test_unions_are_told_apart_by_their_type() -> None:
    signature = Signature(task="regression", features=("a",))
    event = ModelRegistered(model="m", version=1, digest="d", uri="u", size_bytes=1, signature=signature)
    assert decode(encode_json(event), ModelEvent, "here") == event
    with pytest.raises(EventInvalid):
        decode(encode_json(event), DriftEvent, "here")
    assert type_name(event) == "driftloop.model_registered.v1"


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"{", b"[]", b"\x91", b"\xc1", b"\xff", b'{"model":1}', b"{" * 5000])
@pytest.mark.parametrize("kind", [PredictionMade, LabelArrived, ModelEvent])
def test_what_is_no_event_is_malformed_and_says_where(value: bytes | None, kind: Any) -> None:
    with pytest.raises(EventInvalid, match=r"value must be .*\(topic offset 3\)") as caught:
        decode(value, kind, "topic offset 3")
    assert caught.value.disposition == "malformed"


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    for kind in (PredictionMade, LabelArrived, ModelEvent):
        try:
            decode(value, kind, "here")
        except EventInvalid:
            continue


def test_equal_events_give_equal_bytes() -> None:
    one = PredictionMade(model="m", version=1, prediction_id="x", output=1, features={"b": 1.5, "a": 2.0})
    assert encode_json(one) == encode_json(msgspec.json.decode(encode_json(one), type=PredictionMade))
