"""Layouts: strict decoders that agree with the general one, or refuse."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.schemas.events import PredictionMade
from driftloop.schemas.layouts import label_decoders, layout, packed_decoder, prediction_columns

NAMES = ("a", "type", "model", "f0", "with space", "ünï")
LAYOUT = layout(NAMES, (True,) * len(NAMES))
GOOD = {"model": "m", "version": 1, "prediction_id": "x", "output": 1}


def test_equal_layouts_are_one_object() -> None:
    assert layout(("a",), (True,)) is layout(("a",), (True,))
    assert layout(("a",), (True,)) is not layout(("a",), (False,))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.none() | st.floats(-1e6, 1e6) | st.integers(-9, 9)))
def test_what_is_decoded_is_what_the_general_decoder_gives(features: dict[str, Any]) -> None:
    data = msgspec.json.encode({**GOOD, "features": features})
    general = msgspec.json.decode(data, type=PredictionMade)
    for decoded in (LAYOUT.decode_json(data), LAYOUT.decode_msgpack(msgspec.msgpack.encode({**GOOD, "features": features}))):
        assert prediction_columns(decoded)[:7] == prediction_columns(general)[:7]
        assert msgspec.structs.astuple(decoded.features) == tuple(general.features.get(name) for name in NAMES)


@pytest.mark.parametrize(
    "change",
    [
        *({"version": 0}, {"version": 2**31}, {"prediction_id": ""}, {"prediction_id": "x" * 257}, {"unknown": 1}),
        *(
            {"features": {"other": 1}},
            {"features": {"a": "text"}},
            {"features": {"a": [True]}},
            {"features": [1]},
            {"type": "label_arrived"},
        ),
    ],
)
def test_what_is_odd_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        LAYOUT.decode_json(msgspec.json.encode({**GOOD, "features": {}, **change}))


def test_the_tag_may_be_absent() -> None:
    assert LAYOUT.decode_json(b'{"type":"prediction_made",' + msgspec.json.encode({**GOOD, "features": {}})[1:]).model == "m"
    json, msgpack, packed = label_decoders()
    said = {"model": "m", "prediction_id": "x", "label": None}
    assert json(msgspec.json.encode(said)).label is None
    assert msgpack(msgspec.msgpack.encode(said)).label is None
    assert packed(msgspec.msgpack.encode(["m", "x", None])).label is None


@pytest.mark.parametrize("name", ['quo"te', "line\nbreak", "back\\slash", "null\x00"])
def test_names_that_cannot_be_compiled_are_left_to_the_general_decoder(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="no compiled decoder"):
        layout((name,), (True,)).decode_json(msgspec.json.encode({**GOOD, "features": {name: 1}}))


def test_packed_is_strict() -> None:
    row = ["m", 1, "x", 1.5, 1, b"\x00" * 4]
    assert packed_decoder()(msgspec.msgpack.encode(row)).features == b"\x00" * 4
    with pytest.raises(msgspec.ValidationError):
        packed_decoder()(msgspec.msgpack.encode([*row, "", None, None, None, "more"]))


def test_categories_and_gaps_are_aligned_as_nan() -> None:
    mixed = layout(("a", "b", "c"), (True, False, True))
    assert mixed.align((1, "x", None)) == mixed.pack(1.0, float("nan"), float("nan"))
