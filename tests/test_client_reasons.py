"""Why events were not sent: by reason in the counts, each told once a minute with its first example."""

import logging
import math
from typing import Any

import pytest

from driftloop.schemas.errors import DriftloopError, EventInvalid
from driftloop.settings import Settings
from driftloop.streams import client_reasons
from driftloop.streams.client import Client, ClientConfig, Counters
from driftloop.streams.client_reasons import MAX_REASONS, OTHER, Reasons
from driftloop.streams.memory import MemoryTransport


def silent(**config: Any) -> Client:
    return Client(settings=Settings(), transport=MemoryTransport(), config=ClientConfig(**config))


def test_failures_are_counted_by_reason_and_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    client, said = silent(), {"output": 1, "feature": {"a": 1.0}}
    with caplog.at_level(logging.WARNING, "driftloop.client"):
        for n in range(5):
            client.log_prediction("fraud model", output=1)
            assert client.log_prediction("m", **said)  # type: ignore[arg-type]
            client.log_label("m", "x" * (300 + n), 1)
        client.log_label("m", "x", math.nan)
    assert client.counters == Counters(sent=16, acked=0, dropped=0, failed=16)
    reasons = client.reasons
    assert sorted(reasons.values()) == [1, 5, 5, 5]
    assert reasons["model must be 1 to 200 of A-Z a-z 0-9 . _ -"] == 5
    assert reasons["prediction_id must be 1 to 256 characters"] == 5
    assert len(caplog.records) == 4
    assert "got 'fraud model'" in caplog.text
    assert "did you mean 'features'" in caplog.text
    caplog.clear()
    client.close()
    assert "0 of 16 events were dropped and 16 failed" in caplog.text
    assert "5 times: model must be 1 to 200" in caplog.text


def test_a_reason_is_told_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(client_reasons.time, "monotonic", lambda: now[0])
    reasons, problem = Reasons(), EventInvalid("invalid", "x must be y, got z")
    assert [reasons.add(problem), reasons.add(problem)] == [1, 0]
    now[0] = 159.0
    assert reasons.add(problem) == 0
    now[0] = 161.0
    assert reasons.add(problem) == 4
    assert reasons.counts() == {"x must be y": 4}


def test_reasons_without_number_are_counted_together() -> None:
    reasons = Reasons()
    for n in range(MAX_REASONS + 50):
        reasons.add(DriftloopError(f"reason {n}"))
    assert reasons.counts()[OTHER] == 50
    assert len(reasons.counts()) == MAX_REASONS + 1


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_on_error_raises_stays_there(raised: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    def told(problem: DriftloopError) -> None:
        raise raised

    client = silent(on_error=told)
    assert client.log_prediction("m", output=math.nan)
    assert client.counters.failed == 1
    assert "on_error raised" in caplog.text


def test_what_arguments_raise_stays_there_too() -> None:
    class Evil(dict[str, float]):
        def __iter__(self) -> Any:
            raise RuntimeError("x")

        items = values = __len__ = __iter__

    class Unsayable(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Big:
        def __float__(self) -> float:
            raise Unsayable

        item = __float__

    client = silent()
    for features in (Evil(a=1.0), {"a": Big()}, [10**400], {"a": "\ud800"}, {"\ud800": 1.0}):
        client.log_prediction("m", output=1, features=features)  # type: ignore[arg-type]
    client.log_prediction("m", output=Big())  # type: ignore[arg-type]
    client.log_prediction("m", output=1, prediction_id="\ud800")
    client.log_prediction([], output=1)  # type: ignore[arg-type]
    assert client.counters == Counters(sent=8, acked=0, dropped=0, failed=8)
    assert sum(client.reasons.values()) == 8
