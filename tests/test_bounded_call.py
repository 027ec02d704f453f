"""Calls with a bound: what they return, what they raise, and an end to those that have none."""

import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from driftloop.streams import bounded_call
from driftloop.streams.bounded_call import bounded


def test_a_call_returns_what_it_would() -> None:
    assert bounded(lambda: 42, 1.0) == 42
    assert bounded(lambda: None, 1.0) is None


def test_a_call_raises_what_it_would() -> None:
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 1.0)


def test_a_call_without_end_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_call, "GRACE_S", 0.05)
    release, began = threading.Event(), time.monotonic()
    with pytest.raises(KafkaException) as told:
        bounded(release.wait, 0.05)
    assert time.monotonic() - began < 5.0
    assert told.value.args[0].code() == KafkaError._TIMED_OUT
    assert "did not return within 0.1 s" in told.value.args[0].str()
    release.set()
