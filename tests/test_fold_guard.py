"""The guard of a fold: nothing a record holds gets out of it, and a flood of them is told once a minute."""

import json
import logging
from typing import Any

import pytest

from driftloop.schemas.dead_letters import SAFE_BYTES
from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import JobCommand
from driftloop.schemas.records import Record
from driftloop.streams.fold_guard import FoldGuard, dead_letter

LOG = logging.getLogger("driftloop.test")
GOOD = json.dumps({"type": "job_cancelled", "model": "m", "job_id": "j"}).encode()


def record(value: bytes | None) -> Record:
    return Record(topic="jobs", partition=0, offset=3, timestamp_ms=0, key=b"m", value=value)


def test_a_fault_of_the_fold_is_returned_and_the_next_record_is_folded() -> None:
    guard, folded = FoldGuard(LOG), list[Any]()
    assert guard.take(record(GOOD), JobCommand, folded.append) is None
    for fault in (ValueError("x"), MemoryError(), RecursionError(), OverflowError("too big")):

        def fold(_: Any, fault: Exception = fault) -> None:
            raise fault

        problem = guard.take(record(GOOD), JobCommand, fold)
        assert problem is not None
        assert problem.disposition == "processing_error"
        assert type(fault).__name__ in str(problem)
    assert guard.take(record(b"{"), JobCommand, folded.append) is not None
    assert guard.take(record(GOOD), JobCommand, folded.append) is None
    assert len(folded) == 2
    assert dict(guard.skipped) == {"processing_error": 4, "malformed": 1}


def test_a_flood_is_told_once_a_minute_with_its_number(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    guard = FoldGuard(LOG, lambda: now[0])
    for _ in range(1_000):
        guard.take(record(b'{"x": "\n\x1b[31mFAKE"}'), JobCommand, print)
    now[0] = 61.0
    guard.take(record(None), JobCommand, print)
    assert guard.skipped["malformed"] == 1_001
    _, second = caplog.messages
    assert "999 more" in second
    assert all(message.isprintable() for message in caplog.messages)


def test_a_dead_letter_fits_any_topic() -> None:
    letter = dead_letter("jobs.dlq", record(b"{" + b"0" * 5_000_000), EventInvalid("malformed", "no event"))
    assert letter.topic == "jobs.dlq"
    assert letter.value is not None
    assert len(letter.value) <= SAFE_BYTES
    assert dict(letter.headers)["__dlq.errors.size_bytes"] == b"5000001"
