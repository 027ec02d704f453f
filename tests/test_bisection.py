"""Bisection: a fault that nobody foresaw while records are taken in costs those records alone, each told as a fault of ours."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from driftloop.detectors import intake
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import play, record, small, told, traffic


def failing(real: Callable[..., Any], sought: str, fault: BaseException) -> Callable[..., Any]:
    """Return a step of intake that fails on every batch with an id."""

    def step(idents: Any, *rest: Any) -> Any:
        if any(sought in (ident.decode() if isinstance(ident, bytes) else ident) for ident in idents):
            raise fault
        return real(idents, *rest)

    return step


def with_faults(log: list[Record]) -> list[Record]:
    """Return the log with predictions and labels in it that intake is made to fail on, odd records beside them."""
    found = list(log)
    for number, place in enumerate((3, 200, 201, 777)):
        topic = "predictions" if number % 2 else "labels"
        value: dict[str, Any] = {"model": "model-0", "prediction_id": f"fault-{number}", "unknown": 1}
        value |= {"version": 1, "output": 1, "features": dict.fromkeys("abcd", 0.5)} if number % 2 else {"label": 1}
        stamp = log[place].timestamp_ms
        found.append(record(topic, 10_000 + number, stamp, b"model-0", json.dumps(value).encode()))
        found.append(record("predictions", 20_000 + number, stamp, b"model-0", b"{"))
    places = {id(one): at for at, one in enumerate(log)}
    return sorted(found, key=lambda one: (one.timestamp_ms, places.get(id(one), -1)))


@pytest.mark.parametrize("fault", [RuntimeError("unforeseen"), MemoryError("none left"), IndexError("out of bounds")])
@pytest.mark.parametrize("size", [1, 60, 10_000])
def test_the_records_that_fail_are_dead_letters_and_the_others_go_on(
    fault: BaseException, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = with_faults(traffic(500, drift_at=250))
    clean = play(Monitor(small(), "driftloop.", 0), [one for one in log if b"fault-" not in (one.value or b"")], size)
    monkeypatch.setattr(intake, "hashed", failing(intake.hashed, "fault-", fault))
    effects = play(Monitor(small(), "driftloop.", 0), log, size)
    lost = [letter for letter in effects.dead_letters if letter.disposition == "processing_error"]
    assert sorted(letter.offset for letter in lost) == [10_000, 10_001, 10_002, 10_003]
    assert {letter.message for letter in lost} == {f"{type(fault).__name__}: {fault}"}
    others = [letter for letter in effects.dead_letters if letter.disposition != "processing_error"]
    assert [(one.offset, one.disposition) for one in others] == [(one.offset, one.disposition) for one in clean.dead_letters]
    events, wanted = ([json.loads(one) for one in told(done)[0]] for done in (effects, clean))
    assert len(events) > 5
    for one in (*events, *wanted):
        # An episode's name holds the place of its record in the log, which the faults move.
        one.pop("episode_id", None)
    assert events == wanted


def test_what_ends_a_process_on_purpose_is_no_fault_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "hashed", failing(intake.hashed, "id-", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        play(Monitor(small(), "driftloop.", 0), traffic(50), 10)
