"""A line of NDJSON goes to the topic of its type, else of its fields; what fits none is malformed."""

import json
from typing import Any

import pytest

from driftloop.schemas.errors import EventInvalid
from driftloop.streams.event_lines import Told, tell


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"type": "prediction_made", "label": 1}, "predictions"),
        ({"type": "driftloop.prediction_made.v1"}, "predictions"),
        ({"type": "label_arrived", "output": 1}, "labels"),
        ({"type": "driftloop.label_arrived.v1"}, "labels"),
        ({"type": "model_registered"}, "models"),
        ({"type": "driftloop.model_promoted.v1"}, "models"),
        ({"label": None}, "labels"),
        ({"output": 1}, "predictions"),
        ({"features": {}}, "predictions"),
        ({"output": 1, "label": 1}, "predictions"),
        ({"specversion": "1.0", "type": "driftloop.label_arrived.v1", "data": {"label": 2}}, "labels"),
    ],
)
def test_a_line_is_told_by_its_type_else_by_its_fields(fields: dict[str, Any], kind: str) -> None:
    assert tell(line(**fields)).kind == kind


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"type":"alert_fired"}', b'{"type":7}', b"{}", b"\xff", b"[" * 100_000])
def test_what_fits_no_topic_is_malformed(text: bytes) -> None:
    with pytest.raises(EventInvalid) as caught:
        tell(text)
    assert caught.value.disposition == "malformed"


@pytest.mark.parametrize(
    ("ts", "ts_ms"),
    [
        (1.5, 1_500),
        ("1970-01-01T00:00:02+00:00", 2_000),
        ("1970-01-01T00:00:02", 2_000),
        ("soon", None),
        (True, None),
        (-1, None),
        (1e300, None),
        (None, None),
        ([], None),
    ],
)
def test_a_time_that_is_none_is_left_out(ts: Any, ts_ms: int | None) -> None:
    assert tell(line(output=1, model="m", ts=ts)) == Told("predictions", "m", ts_ms)


def test_a_model_that_is_no_text_has_no_name() -> None:
    assert tell(line(output=1, model=7)).model == ""
