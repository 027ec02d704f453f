"""CloudEvents headers on what we write: the six attributes, and an id made from the bytes."""

import msgspec

from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import decode
from driftloop.schemas.events import LabelArrived, ModelEvent, ModelRejected, PredictionMade
from driftloop.schemas.topics import KINDS


def test_headers_name_the_event_and_only_time_comes_from_the_clock() -> None:
    event = ModelRejected(model="fraud", reasons=("worse",), job_id="j")
    first, second = encode_event(event, 1.7e9), encode_event(event, 1.8e9)
    headers = dict(first[2])
    assert first[:2] == second[:2]
    assert headers["ce_type"] == b"driftloop.model_rejected.v1"
    assert headers["ce_subject"] == b"fraud"
    assert {name for name, value in first[2] if dict(second[2])[name] != value} == {"ce_time"}
    assert decode(first[1], ModelEvent, "here") == event


def test_structured_mode_is_read() -> None:
    label = LabelArrived(model="m", prediction_id="p", label=1)
    wrapped = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": msgspec.to_builtins(label)}
    assert decode(msgspec.json.encode(wrapped), LabelArrived, "here") == label


def test_every_topic_carries_events_that_say_their_type() -> None:
    assert KINDS["predictions"].carries is PredictionMade
    kinds = [kind for kind in KINDS.values() if kind.carries is not None]
    assert kinds
    for kind in kinds:
        for struct in getattr(kind.carries, "__args__", (kind.carries,)):
            assert struct.__struct_config__.tag_field == "type"
