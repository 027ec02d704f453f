"""Control events: what any producer may write, held to bounds before anything is folded from it."""

import json
from typing import Any

import pytest

from driftloop.schemas.control_events import decode_control
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import DriftEvent, Event, JobCommand, JobEvent
from driftloop.schemas.records import Record

POSITION = {"topic": "t", "partition": 0, "offset": 1, "ts": 1.0}
OPENED = {
    "type": "drift_opened",
    "model": "m",
    "episode_id": "e1",
    "version": 1,
    "signal": "error",
    "detector": "adwin",
    "parameters": {},
    "direction": "worse",
    "severity": "high",
    "before_mean": 0.1,
    "after_mean": 0.5,
    "effect": 1.0,
    "change_point": POSITION,
    "detected_at": POSITION,
    "rows": {"partition": 0, "start_offset": 0, "labels_start_offset": 0},
    "labelled_rows": 10,
}
ASKED = {"type": "job_requested", "model": "m", "job_id": "e1-300", "recipe": "repair", "requested_by": "policy"}
FINISHED = {
    "type": "job_finished",
    "model": "m",
    "job_id": "j",
    "recipe": "repair",
    "outcome": "promoted",
    "reasons": [],
    "duration_s": 1.0,
}


def decode(plain: dict[str, Any] | bytes, carries: Any = DriftEvent | JobCommand | JobEvent) -> Event:
    value = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    return decode_control(Record(topic="t", partition=0, offset=0, timestamp_ms=0, key=b"m", value=value), carries)


@pytest.mark.parametrize("plain", [OPENED, ASKED, FINISHED, ASKED | {"job_id": "e" * 256 + "-2000"}])
def test_sound_events_pass(plain: dict[str, Any]) -> None:
    assert decode(plain).model == "m"


@pytest.mark.parametrize(
    ("plain", "disposition", "says"),
    [
        (ASKED | {"job_id": "e1-" + "9" * 5000}, "invalid", "job_id must be 1 to"),
        (ASKED | {"job_id": ""}, "invalid", "job_id must be 1 to"),
        (ASKED | {"job_id": "e\n\x1b[31mFAKE"}, "invalid", "printable"),
        (ASKED | {"episode_id": "e" * 257}, "invalid", "episode_id"),
        (ASKED | {"recipe": "r" * 900_000}, "invalid", "recipe"),
        (ASKED | {"model": "m" * 500_000}, "invalid", "model"),
        (ASKED | {"model": "two\nlines"}, "invalid", "model"),
        (ASKED | {"labelled_rows": 10**30}, "invalid", "64 bits"),
        (ASKED | {"options": {"seed": 2**70}}, "invalid", "64 bits"),
        (ASKED | {"options": {f"k{n}": "v" * 1_000 for n in range(600)}}, "too_large", "characters"),
        (OPENED | {"episode_id": "e" * 700_000}, "invalid", "episode_id"),
        (OPENED | {"signal": "s" * 900_000}, "too_large", "characters"),
        (OPENED | {"labelled_rows": 10**30}, "invalid", "64 bits"),
        (OPENED | {"version": 2**64}, "invalid", "64 bits"),
        (OPENED | {"change_point": POSITION | {"offset": -(2**63) - 1}}, "invalid", "64 bits"),
        (OPENED | {"rows": {"partition": 0, "start_offset": 2**63, "labels_start_offset": 0}}, "invalid", "64 bits"),
        (FINISHED | {"job_id": "j" * 900_000}, "invalid", "job_id"),
    ],
)
def test_what_would_not_fit_again_is_refused_with_its_reason(plain: dict[str, Any], disposition: str, says: str) -> None:
    with pytest.raises(EventInvalid, match=says) as refused:
        decode(plain)
    assert refused.value.disposition == disposition
    assert len(str(refused.value)) < 3_000
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(OPENED).encode().replace(b'"model": "m"', b'"model": "\\ud800"'),
        json.dumps(OPENED).encode().replace(b'"effect": 1.0', b'"effect": 1e999'),
        json.dumps(OPENED | {"parameters": {"a": 1.0}}).encode().replace(b'"a": 1.0', b'"a": NaN'),
        b"\xff\x00garbage",
        b"",
    ],
)
def test_text_that_is_no_unicode_and_numbers_that_are_none_are_refused(value: bytes) -> None:
    with pytest.raises(EventInvalid):
        decode(value)
