"""The whole service as a process: ready, clean end on a signal, and one role's end ends all."""

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

from driftloop.schemas.errors import Conflict, DriftloopError
from driftloop.settings import Settings
from driftloop.streams import serve as serving
from driftloop.streams.serve import serve
from driftloop.streams.topics import admin_client

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


def wait_for_line(log: Path, text: str, process: subprocess.Popen[bytes], timeout_s: float = 40.0) -> None:
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
        assert process.wait(25) == 0, log.read_text("utf-8")
    said = log.read_text("utf-8")
    assert "Traceback" not in said
    assert "Warning" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.log"], "nothing is written to the working directory"


def test_a_role_that_fails_ends_the_others(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
        up.set()
        raise DriftloopError("broken on purpose")

    monkeypatch.setitem(serving.ROLES, "monitor", fail)
    with pytest.raises(DriftloopError, match="broken on purpose"):
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
    with service(environment, logs[0], "worker") as first:
        wait_for_line(logs[0], "ready: worker", first)
        wait_for_member(topics, topics.worker_group)
        with service(environment, logs[1], "worker") as second:
            assert first.wait(40) == Conflict.exit_code, logs[0].read_text("utf-8")
            assert "slot must belong to one process, got another one with slot 0" in logs[0].read_text("utf-8")
            wait_for_line(logs[1], "ready: worker", second)
            os.kill(second.pid, signal.SIGTERM)
            assert second.wait(25) == 0, logs[1].read_text("utf-8")
