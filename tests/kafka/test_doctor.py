"""`driftloop doctor` against a broker: a health check passes without the optional programs, and fails without topics."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftloop.schemas.topics import KINDS
from driftloop.settings import Settings
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.topics import ensure_topics
from driftloop.streams.troubles import Trouble, TroubleBoard
from driftloop.tests.data_plane_world import WAIT_S, running

pytestmark = pytest.mark.kafka

OPTIONAL = ("DRIFTLOOP_KAFKA_LIBS", "JAVA_HOME", "XDG_CACHE_HOME", "PATH")


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2 * WAIT_S
    while not holds():
        assert time.monotonic() < deadline


def doctor(environment: dict[str, str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Run the command where neither Java nor Maven nor kcat can be found; return its exit code and what it said by check."""
    bare = {name: value for name, value in environment.items() if name not in OPTIONAL}
    bare |= {"PATH": str(folder), "XDG_CACHE_HOME": str(folder)}
    order = [sys.executable, "-m", "driftloop", "doctor", "--json"]
    done = subprocess.run(order, env=bare, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0), done.stderr
    return done.returncode, {check["check"]: check for check in told["checks"]}


def test_a_health_check_needs_broker_topics_and_store_alone(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    code, found = doctor(environment, tmp_path)
    assert (code, found["topics"]["verdict"], found["topics"]["exit_code"]) == (4, "fail", 4)
    assert found["topics"]["found"].startswith(f"{len(KINDS)} of {len(KINDS)} are not there: {settings.topics.prefix}")
    assert found["topics"]["advice"] == "driftloop init"
    ensure_topics(settings)
    code, found = doctor(environment, tmp_path)
    assert (code, found["monitor"]["verdict"], found["monitor"]["advice"]) == (1, "fail", "driftloop serve --roles monitor")
    assert {name: found[name]["verdict"] for name in ("control", "worker")} == {"control": "warn", "worker": "warn"}
    with running(DataPlane(settings)):
        eventually(lambda: doctor(environment, tmp_path)[1]["monitor"]["verdict"] == "ok")
        code, found = doctor(environment, tmp_path)
    assert code == 0, found
    healthy = ("broker", "topics", "state", "store", "monitor", "troubles")
    assert {name: found[name]["verdict"] for name in healthy} == dict.fromkeys(healthy, "ok")
    assert {name: found[name]["verdict"] for name in ("local broker", "kcat")} == {"local broker": "warn", "kcat": "warn"}


def test_an_open_trouble_fails_until_it_is_over(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    board = TroubleBoard(topics, KafkaTransport(topics))
    board.begin(Trouble("stall-t-0", "partition 0 of t stands still"))
    code, found = doctor(environment, tmp_path)
    assert (code, found["troubles"]["verdict"]) == (1, "fail")
    assert "partition 0 of t stands still" in found["troubles"]["found"]
    board.end("service-stall-t-0", "it moves")
    assert doctor(environment, tmp_path)[1]["troubles"]["verdict"] == "ok"
    board.close()


def test_a_topic_with_another_partition_count_fails(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    code, found = doctor({**environment, "DRIFTLOOP_TOPICS__PARTITIONS": "3"}, tmp_path)
    assert (code, found["topics"]["verdict"]) == (4, "fail")
    assert "must have 3 partitions, got 2" in found["topics"]["found"]
