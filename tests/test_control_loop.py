"""The control plane stepped by hand: the same requests as on Kafka, found again after its memory is lost."""

import pytest

from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import decode
from driftloop.schemas.dead_letters import SAFE_BYTES
from driftloop.schemas.events import (
    AlertEvent,
    DriftClosed,
    DriftOpened,
    Event,
    JobCommand,
    JobFinished,
    JobRequested,
)
from driftloop.settings import Settings
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.policy import ModelState, Policy
from driftloop.streams.transport import Outgoing
from driftloop.tests.made_drift import HERE, drift_opened, drift_updated

SETTINGS = Settings()


def closed() -> DriftClosed:
    return DriftClosed(
        model="m", episode_id="e1", version=1, signal="error", reason="recovered", after_mean=0.1, labelled_rows=9, closed_at=HERE
    )


def finished(job_id: str) -> JobFinished:
    return JobFinished(model="m", job_id=job_id, recipe="repair", outcome="promoted", reasons=(), duration_s=1.0)


def send(transport: MemoryTransport, kind: str, *events: Event) -> None:
    for event in events:
        transport.sender().send(Outgoing(SETTINGS.topic(kind), *encode_event(event, 0.0)))


def drain(loop: ControlLoop) -> None:
    while loop.step():
        pass


def told(transport: MemoryTransport, kind: str) -> list[str]:
    reader = transport.reader([SETTINGS.topic(kind)])
    carries = {"jobs": JobCommand, "alerts": AlertEvent}[kind]
    events = [decode(record.value, carries, kind) for record in reader.poll(100, 0.0)]
    return [event.job_id if kind == "jobs" else type(event).__name__ for event in events]


def test_jobs_and_alerts_follow_the_episode() -> None:
    transport = MemoryTransport()
    loop = ControlLoop(SETTINGS, transport)
    send(transport, "drift", drift_opened(10))
    drain(loop)
    assert (told(transport, "jobs"), told(transport, "alerts")) == ([], ["AlertFired"])
    send(transport, "drift", drift_updated(300), drift_updated(2000))
    drain(loop)
    assert told(transport, "jobs") == ["e1-2000"]
    send(transport, "job-events", finished("e1-2000"))
    send(transport, "drift", closed())
    drain(loop)
    assert told(transport, "alerts") == ["AlertFired", "AlertResolved"]


def test_memory_is_found_again_at_every_point() -> None:
    transport = MemoryTransport()
    steps = [
        ("drift", drift_opened(10)),
        ("drift", drift_updated(300)),
        ("drift", drift_updated(2000)),
        ("job-events", finished("e1-300")),
        ("job-events", finished("e1-2000")),
        ("drift", closed()),
    ]
    for kind, event in steps:
        send(transport, kind, event)
        loop = ControlLoop(SETTINGS, transport)
        drain(loop)
        loop.close()
    assert told(transport, "jobs") == ["e1-300", "e1-2000"]
    assert told(transport, "alerts") == ["AlertFired", "AlertResolved"]


def test_a_bad_record_is_passed_over_and_kept_as_a_dead_letter() -> None:
    transport = MemoryTransport()
    loop = ControlLoop(SETTINGS, transport)
    for value in (b"", b"{", None):
        transport.sender().send(Outgoing(SETTINGS.topic("drift"), b"m", value))
    send(transport, "drift", drift_opened(300))
    drain(loop)
    assert told(transport, "jobs") == ["e1-300"]
    letters = transport.reader([SETTINGS.topic("jobs.dlq")]).poll(100, 0.0)
    assert [(letter.key, letter.value) for letter in letters] == [(b"m", b""), (b"m", b"{"), (b"m", None)]
    headers = [dict(letter.headers) for letter in letters]
    assert {header["__dlq.errors.topic"] for header in headers} == {SETTINGS.topic("drift").encode()}
    assert [header["__dlq.errors.offset"] for header in headers] == [b"0", b"1", b"2"]


def asked(job_id: str) -> JobRequested:
    return JobRequested(model="m", job_id=job_id, recipe="repair", requested_by="policy", episode_id="e1")


def opened_as(model: str, episode_id: str) -> DriftOpened:
    return drift_opened(300, model, episode_id)


@pytest.mark.parametrize(
    ("kind", "poison"),
    [
        ("jobs", asked("e1-" + "9" * 5000)),
        ("drift", opened_as("m", "e" * 700_000)),
        ("drift", opened_as("x" * 500_000, "e")),
        ("drift", drift_opened(300, episode_id="e9", signal="s" * 900_000)),
    ],
)
def test_no_record_keeps_the_other_models_from_their_repairs(kind: str, poison: Event) -> None:
    transport = MemoryTransport()
    send(transport, "drift", drift_opened(10))
    send(transport, kind, poison)
    send(transport, "drift", opened_as("good", "g1"))
    for _ in range(2):
        loop = ControlLoop(SETTINGS, transport)
        drain(loop)
        loop.close()
    assert "g1-300" in told(transport, "jobs")
    # The worker sets aside what is no job, the control plane the rest.
    letters = transport.reader([SETTINGS.topic("jobs.dlq")]).poll(100, 0.0)
    assert bool(letters) == (kind == "drift")
    assert all(len(letter.value or b"") <= SAFE_BYTES for letter in letters)


def test_a_fault_in_the_policy_ends_with_its_model(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fold, due = Policy.fold, Policy.due

    def hurt_fold(policy: Policy, event: Event, state: ModelState) -> ModelState:
        if event.model == "folds-badly":
            raise IndexError("a fault of ours")
        return fold(policy, event, state)

    def hurt_due(policy: Policy, model: str, state: ModelState) -> tuple[list[Event], ModelState]:
        if model == "asks-badly":
            raise OverflowError("a fault of ours")
        return due(policy, model, state)

    monkeypatch.setattr(Policy, "fold", hurt_fold)
    monkeypatch.setattr(Policy, "due", hurt_due)
    transport = MemoryTransport()
    send(transport, "drift", opened_as("folds-badly", "f1"), opened_as("asks-badly", "a1"), opened_as("good", "g1"))
    for _ in range(2):
        loop = ControlLoop(SETTINGS, transport)
        drain(loop)
        loop.close()
    assert told(transport, "jobs") == ["g1-300"]
    (letter, _) = transport.reader([SETTINGS.topic("jobs.dlq")]).poll(100, 0.0)
    assert dict(letter.headers)["__dlq.errors.disposition"] == b"processing_error"
    assert "nothing is asked for asks-badly" in caplog.text


def test_what_is_asked_and_told_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="driftloop.control")
    transport = MemoryTransport()
    loop = ControlLoop(SETTINGS, transport)
    send(transport, "drift", drift_opened(300))
    drain(loop)
    send(transport, "drift", closed())
    drain(loop)
    for part in ("job e1-300 of m is asked for", "alert drift-e1 of m fired", "alert drift-e1 of m is resolved"):
        assert part in caplog.text
    assert len(caplog.messages) == 3
