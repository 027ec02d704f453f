"""The whole service as a process: ready, clean end on a signal, a broker that goes away, roles that fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.config import ServiceConfig
from driftloop.schemas.errors import Conflict, SnapshotInvalid
from driftloop.schemas.events import JobRequested
from driftloop.schemas.records import Record
from driftloop.settings import Settings
from driftloop.streams import serve as serving
from driftloop.streams.broker import BrokerAddress, BrokerConfig, LocalBroker
from driftloop.streams.faust_settings import group_of
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.serve import serve
from driftloop.streams.topics import admin_client
from driftloop.streams.transport import Outgoing
from driftloop.tests.data_plane_world import WAIT_S, read, send

pytestmark = pytest.mark.kafka


@contextmanager
def service(environment: dict[str, str], log: Path, roles: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "serve", "--roles", roles], env=environment, stderr=file, cwd=log.parent
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for_line(log: Path, text: str, process: subprocess.Popen[bytes], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in log.read_text("utf-8"):
        assert process.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_gets_ready_and_ends_cleanly_on_a_signal(
    topics: Settings, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "service.log"
    with service(environment, log, "monitor,control,worker") as process:
        wait_for_line(log, "ready: monitor, control, worker", process)
        os.kill(process.pid, number)
        assert process.wait(60) == 0, log.read_text("utf-8")
    said = log.read_text("utf-8")
    assert "Traceback" not in said
    assert "Warning" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log", "store"], "nothing but the store of the settings"


def test_all_roles_outlive_a_broker_that_goes_away(
    topics: Settings, environment: dict[str, str], tmp_path: Path, broker: BrokerAddress
) -> None:
    if broker.data_dir is None:
        pytest.skip("the broker must be one of ours to be restarted")
    local, log = LocalBroker(BrokerConfig(data_dir=broker.data_dir)), tmp_path / "service.log"
    with service(environment, log, "monitor,control,worker") as process:
        wait_for_line(log, "ready: monitor, control, worker", process)
        send(topics, 0, 1_500)
        wait_for_events(topics, "metrics", 1)
        assert local.stop()
        # Longer than the session timeout: the group takes the partitions away.
        time.sleep(topics.data_plane.session_timeout_s + 1.0)
        assert local.start().bootstrap_servers == broker.bootstrap_servers
        send(topics, 1_500, 1_500, turned=True)
        request = JobRequested(model="m", job_id="j", recipe="repair", requested_by="user")
        sender = KafkaTransport(topics).sender()
        sender.send(Outgoing(topics.topic("jobs"), *encode_event(request, time.time())))
        assert sender.flush(WAIT_S) == 0
        sender.close()
        # The monitor, the control plane and the worker have each gone on where they were.
        metrics = wait_for_events(topics, "metrics", 3)
        assert [json.loads(record.value or b"")["total_rows"] for record in metrics] == [1_000, 2_000, 3_000]
        assert len(wait_for_events(topics, "alerts", 1)) == 1
        told = {dict(record.headers)["ce_type"] for record in wait_for_events(topics, "job-events", 2)}
        assert b"driftloop.job_failed.v1" in told
        assert process.poll() is None, log.read_text("utf-8")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text("utf-8")
    said = log.read_text("utf-8")
    assert len(said.splitlines()) < 100, "an outage must not flood the log"
    for line in ("drift: m version", "job j of m", "alert"):
        assert line in said, "what happens to a model is in the log"


def wait_for_events(settings: Settings, kind: str, count: int, timeout_s: float = 120.0) -> list[Record]:
    deadline = time.monotonic() + timeout_s
    while len(found := read(settings, kind)) < count:
        assert time.monotonic() < deadline, (kind, found)
        time.sleep(0.2)
    return found


def test_a_role_that_fails_starts_again_beside_the_others(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of one role is no end of the others; a loop is an alert, and ends the service with the exit code of the fault."""
    quick = topics.model_copy(update={"service": ServiceConfig(max_restarts=3, restart_min_s=0.01)})
    lives: list[threading.Event] = []

    def fail(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
        lives.append(stop)
        up.set()
        raise Conflict(f"broken on purpose {len(lives)}")

    monkeypatch.setitem(serving.ROLES, "monitor", fail)
    with pytest.raises(Conflict, match="broken on purpose 4"):
        serve(quick, ["monitor", "worker"], threading.Event())
    alerts = [json.loads(record.value or b"") for record in wait_for_events(topics, "alerts", 1)]
    assert [alert["alert_id"].rpartition("-monitor-")[0] for alert in alerts] == ["service-restarts"]
    assert "broken on purpose 3" in alerts[0]["summary"]


def test_what_starting_again_cannot_mend_ends_all(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
        up.set()
        raise SnapshotInvalid("broken on purpose")

    monkeypatch.setitem(serving.ROLES, "monitor", fail)
    with pytest.raises(SnapshotInvalid, match="broken on purpose"):
        serve(topics, ["monitor", "worker"], threading.Event())


def wait_for_member(settings: Settings, group: str, timeout_s: float = 30.0) -> None:
    deadline, admin = time.monotonic() + timeout_s, admin_client(settings)
    while True:
        found = admin.describe_consumer_groups([group])[group].result(timeout_s)
        if any(member.assignment.topic_partitions for member in found.members):
            return
        assert time.monotonic() < deadline, found.members
        time.sleep(0.1)


def test_a_second_worker_with_the_same_slot_ends_the_first(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    environment = {**environment, "DRIFTLOOP_WORKER__SLOT": "0"}
    with service(environment, logs[0], "worker") as first:
        wait_for_line(logs[0], "ready: worker", first)
        wait_for_member(topics, topics.worker_group)
        with service(environment, logs[1], "worker") as second:
            assert first.wait(40) == Conflict.exit_code, logs[0].read_text("utf-8")
            said = logs[0].read_text("utf-8")
            assert "slot must belong to one process, got another one with slot 0" in said
            assert "give each process a worker.slot of its own" in said
            wait_for_line(logs[1], "ready: worker", second)
            os.kill(second.pid, signal.SIGTERM)
            assert second.wait(60) == 0, logs[1].read_text("utf-8")


def test_a_second_service_on_one_machine_joins_the_first(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    with service(environment, logs[0], "monitor,control,worker") as first:
        wait_for_line(logs[0], "ready: monitor, control, worker", first)
        with service(environment, logs[1], "monitor,control,worker") as second:
            wait_for_line(logs[1], "ready: monitor, control, worker", second)
            send(topics, 0, 1_500)
            wait_for_events(topics, "metrics", 1)
            for group in (topics.monitor_group, topics.worker_group, group_of(topics)):
                assert owners(topics, group) == 2, group
            for process, log in ((first, logs[0]), (second, logs[1])):
                assert process.poll() is None, log.read_text("utf-8")
                os.kill(process.pid, signal.SIGTERM)
            assert [first.wait(40), second.wait(40)] == [0, 0], [log.read_text("utf-8") for log in logs]


def owners(settings: Settings, group: str, timeout_s: float = 60.0) -> int:
    """Return how many members share the partitions of a group, once all of them have some."""
    deadline, admin = time.monotonic() + timeout_s, admin_client(settings)
    while True:
        found = admin.describe_consumer_groups([group])[group].result(timeout_s).members
        owning = sum(bool(member.assignment.topic_partitions) for member in found)
        if owning == 2 or time.monotonic() > deadline:
            return owning
        time.sleep(0.2)


def test_a_worker_that_cannot_work_takes_no_job_and_says_so(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    log, obstacle = tmp_path / "service.log", Path(topics.store.url)
    obstacle.write_text("a file where the store's folder should be")
    with service(environment, log, "worker") as process:
        wait_for_line(log, "takes no jobs: store must be writable", process)
        (fired,) = [json.loads(record.value or b"") for record in wait_for_events(topics, "alerts", 1)]
        assert fired["alert_id"].startswith("service-worker-unable-")
        assert "ready" not in log.read_text("utf-8")
        obstacle.unlink()
        wait_for_line(log, "ready: worker", process)
        assert len(wait_for_events(topics, "alerts", 2)) == 2
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text("utf-8")
