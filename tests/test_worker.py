"""The worker over the memory transport: what it publishes, what it refuses, what it does once."""

import errno
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftloop.compression import store
from driftloop.compression.store import ArtifactStore
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.config import StoreConfig, TopicsConfig, WorkerConfig
from driftloop.schemas.dead_letters import SAFE_BYTES
from driftloop.schemas.events import (
    Event,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobProgressed,
    JobRequested,
    JobStarted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
)
from driftloop.settings import Settings
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.publishing import promote
from driftloop.streams.registry import read_registry
from driftloop.streams.this_cpu import this_cpu
from driftloop.streams.transport import Outgoing
from driftloop.streams.worker import Worker
from driftloop.tests.worker_world import quick_repair, read, request, send, serve_a_champion, turn_the_concept

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        store=StoreConfig(url=str(tmp_path / "store")),
        recipes=quick_repair("finetune", "scratch"),
        worker=WorkerConfig(heartbeat_s=0.1, job_timeout_s=300.0),
    )


def failure(settings: Settings, transport: MemoryTransport) -> JobFailed:
    (failed,) = [event for event in read(settings, transport, "job-events") if not isinstance(event, JobStarted | JobProgressed)]
    assert isinstance(failed, JobFailed)
    return failed


def test_a_turned_concept_is_repaired_and_published_once(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    send(settings, transport, "jobs", request(settings), request(settings))
    # The end of a curve is told however seldom a job is heard of.
    seldom = settings.worker.model_copy(update={"heartbeat_s": 300.0})
    worker = Worker(settings.model_copy(update={"worker": seldom}), transport)
    assert worker.step()
    assert worker.step()
    assert not worker.step()
    worker.close()
    told = read(settings, transport, "job-events")
    assert isinstance(told[0], JobStarted)
    curve = [event for event in told if isinstance(event, JobProgressed) and "loss" in event.scalars]
    assert curve
    assert all({"loss", "metric", "learning_rate"} <= set(event.scalars) and event.at for event in curve)
    (finished,) = [event for event in told if isinstance(event, JobFinished)]
    assert finished.outcome == "promoted", finished.reasons
    assert finished.version == 2
    registered, promoted = read(settings, transport, "models")[2:]
    assert isinstance(registered, ModelRegistered)
    assert isinstance(promoted, ModelPromoted)
    assert (registered.version, registered.parent_version, registered.job_id) == (2, 1, "j1")
    assert (promoted.digest, promoted.previous_version) == (registered.digest, 1)
    manifest = ArtifactStore(settings.store.url).manifest(registered.digest)
    asked = request(settings).rows
    assert asked is not None
    assert manifest.rows == msgspec.structs.replace(asked, end_offset=400)
    assert manifest.cpu["avx2"] == ("avx2" in this_cpu().flags)
    champion = read_registry(transport, settings).champion("m")
    assert champion is not None
    assert champion.version == 2


def test_a_champion_that_changed_meanwhile_is_not_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    send(settings, transport, "jobs", request(settings), request(settings, "j2"))
    worker = Worker(settings, transport)
    worker.step()
    keep = worker._work.keep
    done: list[bool] = []

    def keep_and_promote() -> bool:
        if not done:
            done.append(True)
            promote(settings, transport, ("m", 1), "a person's word")
        return keep()

    monkeypatch.setattr(worker._work, "keep", keep_and_promote)
    worker.step()
    worker.close()
    finished = [event for event in read(settings, transport, "job-events") if isinstance(event, JobFinished)]
    assert finished[0].outcome == "promoted"
    assert finished[1].outcome == "rejected"
    assert isinstance(read(settings, transport, "models")[-1], ModelRejected)
    champion = read_registry(transport, settings).champion("m")
    assert champion is not None
    assert champion.version == 1


def test_jobs_that_cannot_be_done_fail_with_a_message(settings: Settings) -> None:
    transport = MemoryTransport()
    send(settings, transport, "jobs", request(settings, model="nobody"))
    worker = Worker(settings, transport)
    worker.step()
    assert "nobody" in failure(settings, transport).message
    serve_a_champion(settings, transport)
    send(settings, transport, "jobs", request(settings, "j2"))
    worker.step()
    worker.close()
    last = [event for event in read(settings, transport, "job-events") if event.model == "m"][-1]
    assert isinstance(last, JobFailed)
    assert last.message.startswith("rows must be there")


def test_an_unknown_recipe_and_a_lost_artifact_fail(settings: Settings, tmp_path: Path) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport, rows=200)
    send(settings, transport, "jobs", request(settings, recipe="magic"))
    worker = Worker(settings, transport)
    worker.step()
    assert "recipe must be one of" in failure(settings, transport).message
    for file in (tmp_path / "store").rglob("model.onnx"):
        file.unlink()
    send(settings, transport, "jobs", request(settings, "j2"))
    worker.step()
    worker.close()
    last = read(settings, transport, "job-events")[-1]
    assert isinstance(last, JobFailed)
    assert "is not in" in last.message


def test_a_job_past_its_time_is_stopped(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    short = settings.model_copy(update={"worker": WorkerConfig(job_timeout_s=0.5)})
    send(settings, transport, "jobs", request(settings))
    worker = Worker(short, transport)
    worker.step()
    worker.close()
    assert (failure(settings, transport).cause, len(read(settings, transport, "models"))) == ("timeout", 2)


def test_a_job_that_runs_is_stopped_when_it_is_taken_back(settings: Settings) -> None:
    endless = {"arms": {"finetune": [{"type": "finetune", "epochs": 10**9, "enough_loss": 0.0}]}}
    settings = settings.model_copy(update={"recipes": {"repair": endless}})
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    send(settings, transport, "jobs", request(settings))

    def take_back() -> None:
        while not any(
            isinstance(event, JobProgressed) and event.step == "finetune" for event in read(settings, transport, "job-events")
        ):
            time.sleep(0.02)
        send(settings, transport, "jobs", JobCancelled(model="m", job_id="j1"))

    person = threading.Thread(target=take_back, daemon=True)
    person.start()
    worker = Worker(settings, transport)
    assert worker.step()
    worker.close()
    person.join()
    assert failure(settings, transport).cause == "cancelled"


def test_a_cancelled_job_never_begins(settings: Settings) -> None:
    transport = MemoryTransport()
    send(settings, transport, "jobs", request(settings), JobCancelled(model="m", job_id="j1"))
    worker = Worker(settings, transport)
    assert worker.step()
    assert not worker.step()
    worker.close()
    assert failure(settings, transport).cause == "cancelled"


def test_a_job_that_ends_its_worker_again_and_again_is_given_up(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    send(settings, transport, "jobs", request(settings))
    for _ in range(settings.worker.max_attempts):
        work = transport.work(settings.worker_group, settings.topic("jobs"), "0")
        record = work.take(0.1)
        assert record is not None
        work.attempt(record)
        work.close()
    worker = Worker(settings, transport)
    worker.step()
    worker.close()
    assert (failure(settings, transport).cause, failure(settings, transport).attempt) == ("crashed", 4)


def test_what_is_no_job_is_set_aside(settings: Settings) -> None:
    transport = MemoryTransport()
    event: Event = request(settings, "j1", model="nobody")
    key, _, headers = encode_event(event, 0.0)
    for value in (b"", b"{", None, b'{"type":"job_requested","model":"m"}'):
        transport.sender().send(Outgoing(settings.topic("jobs"), key, value, headers))
    send(settings, transport, "jobs", event)
    worker = Worker(settings, transport)
    while worker.step():
        pass
    worker.close()
    reader = transport.reader([settings.topic("jobs.dlq")])
    assert [record.value for record in reader.poll(10, 0.1)] == [b"", b"{", None, b'{"type":"job_requested","model":"m"}']
    assert isinstance(read(settings, transport, "job-events")[-1], JobFailed)


def test_a_record_too_large_for_a_dead_letter_is_cut_and_the_next_job_is_done(settings: Settings) -> None:
    transport = MemoryTransport()
    event: Event = request(settings, "after", model="nobody")
    key, _, headers = encode_event(event, 0.0)
    transport.sender().send(Outgoing(settings.topic("jobs"), key, b"{" + b"0" * 5_000_000, headers))
    send(settings, transport, "jobs", request(settings, "j" * 900_000, model="nobody"), event)
    worker = Worker(settings, transport)
    while worker.step():
        pass
    worker.close()
    letters = transport.reader([settings.topic("jobs.dlq")]).poll(10, 0.1)
    assert [dict(letter.headers)["__dlq.errors.disposition"] for letter in letters] == [b"malformed", b"invalid"]
    assert all(len(letter.value or b"") <= SAFE_BYTES for letter in letters)
    assert dict(letters[0].headers)["__dlq.errors.size_bytes"] == b"5000001"
    last = read(settings, transport, "job-events")[-1]
    assert isinstance(last, JobFailed)
    assert last.job_id == "after"


def test_one_malformed_job_has_one_dead_letter(settings: Settings) -> None:
    transport = MemoryTransport()
    transport.sender().send(Outgoing(settings.topic("jobs"), b"m", b"{"))
    worker, control = Worker(settings, transport), ControlLoop(settings, transport)
    assert worker.step()
    while control.step():
        pass
    worker.close()
    control.close()
    assert len(transport.reader([settings.topic("jobs.dlq")]).poll(10, 0.1)) == 1


def told(settings: Settings, transport: MemoryTransport) -> list[tuple[str, str]]:
    """Return how each job that ended did."""
    ends = [event for event in read(settings, transport, "job-events") if isinstance(event, JobFinished | JobFailed)]
    return [(end.job_id, end.outcome if isinstance(end, JobFinished) else end.cause) for end in ends]


def by_user(settings: Settings, job_id: str, model: str = "m") -> JobRequested:
    return msgspec.structs.replace(request(settings, job_id, model), requested_by="user", rows=None)


def test_a_flood_of_users_jobs_holds_up_no_repair_of_another_model(settings: Settings) -> None:
    # One partition: all of them stand in one line.
    settings = settings.model_copy(update={"topics": TopicsConfig(partitions=1)})
    transport = MemoryTransport(partitions=1)
    for model in ("m", "other"):
        serve_a_champion(settings, transport, model)
    flood = [by_user(settings, f"flood-{number}") for number in range(2_000)]
    nobodys = [by_user(settings, f"nobody-{number}", f"nobody-{number}") for number in range(200)]
    send(settings, transport, "jobs", *flood, *nobodys, request(settings, "repair", "other"), by_user(settings, "fair", "other"))
    worker = Worker(settings, transport)
    steps = 0
    while ("repair", "error") not in told(settings, transport):
        assert worker.step()
        steps += 1
    assert steps < 30
    # What needs no work is ended on the way; nothing that does was begun before the repair.
    assert [event.job_id for event in read(settings, transport, "job-events") if isinstance(event, JobStarted)] == ["repair"]
    while worker.step():
        pass
    worker.close()
    started = [event.job_id for event in read(settings, transport, "job-events") if isinstance(event, JobStarted)]
    kept = settings.worker.max_queued
    # By turns: the other model's own job does not wait for all that is left of the flood.
    assert sorted(started) == sorted(["repair", "fair", *(f"flood-{number}" for number in range(kept))])
    assert started.index("fair") <= 2
    all_ended = [job_id for job_id, _ in told(settings, transport)]
    assert len(all_ended) == len(set(all_ended)) == len(flood) + len(nobodys) + 2


def test_a_job_that_was_asked_for_twice_and_one_taken_back_end_once_in_a_flood(settings: Settings) -> None:
    transport = MemoryTransport()
    send(settings, transport, "jobs", *(request(settings, "twice") for _ in range(50)), by_user(settings, "back"))
    send(settings, transport, "jobs", JobCancelled(model="m", job_id="back"))
    worker = Worker(settings, transport)
    while worker.step():
        pass
    worker.close()
    assert told(settings, transport) == [("twice", "error"), ("back", "cancelled")]


@pytest.mark.parametrize("where", ["store", "temp"])
def test_a_job_that_finds_no_room_is_put_off_and_done_once_there_is_some(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    put_off = WorkerConfig(heartbeat_s=0.1, job_timeout_s=300.0, put_off_s=0.01)
    settings = settings.model_copy(update={"worker": put_off})
    refusals = [OSError(errno.ENOSPC, "No space left on device")] * 2
    write, make = store.write_durably, tempfile.mkdtemp

    def full_store(path: Path, data: bytes) -> None:
        if refusals and path.name == "model.onnx" and "sha256" in path.parts:
            raise refusals.pop()
        write(path, data)

    def full_disk(*given: Any, **named: Any) -> str:
        if refusals and named.get("prefix") == "driftloop-job-":
            raise refusals.pop()
        return make(*given, **named)

    module, name, full = (store, "write_durably", full_store) if where == "store" else (tempfile, "mkdtemp", full_disk)
    monkeypatch.setattr(module, name, full)
    send(settings, transport, "jobs", request(settings))
    worker = Worker(settings, transport)
    while not told(settings, transport):
        worker.step(0.01)
    worker.close()
    assert told(settings, transport) == [("j1", "promoted")]
    assert not refusals
    assert len([event for event in read(settings, transport, "models") if isinstance(event, ModelPromoted)]) == 2


def test_a_store_that_stays_away_ends_the_job_of_a_user_with_its_reason(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport, rows=200)
    settings = settings.model_copy(update={"worker": WorkerConfig(put_off_s=0.01, max_put_off=3)})
    asked: list[str] = []

    def away(path: Path, limit_bytes: int) -> bytes:
        asked.append(path.name)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "read_bounded", away)
    send(settings, transport, "jobs", by_user(settings, "j1"))
    worker = Worker(settings, transport)
    while not told(settings, transport):
        worker.step(0.01)
    worker.close()
    assert len(asked) == 4
    assert "store must answer and have room, got: Input/output error" in failure(settings, transport).message


def test_jobs_and_champions_are_in_the_log_and_forge_no_line(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="driftloop.worker")
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    send(settings, transport, "jobs", request(settings, "j1"), request(settings, "j2", recipe="magic"))
    worker = Worker(settings, transport)
    while worker.step():
        pass
    send(settings, transport, "models", read_registry(transport, settings).rollback("m", "a person's\nword"))
    worker._looked_at = -1e9
    worker.step()
    worker.close()
    for part in (
        "job j1 of m started",
        "job j1 of m promoted",
        "job j2 of m failed: recipe must be",
        "m: version 2 is the champion",
    ):
        assert part in caplog.text
    assert "m: version 1 is the champion now, instead of version 2 (ModelRolledBack)" in caplog.text
    assert all("\n" not in message for message in caplog.messages)
