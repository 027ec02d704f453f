"""The demo on a real broker: the service as a process of its own, nothing lost, the champion swapped while traffic goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from driftloop.settings import Settings
from driftloop.streams.topics import admin_client, partition_counts
from driftloop.tests.demo_table import table_file


@pytest.mark.kafka
def test_the_whole_demo(settings: Settings, tmp_path: Path) -> None:
    arguments = ["demo", "--data", str(table_file(tmp_path)), "--label", "y", "--train-rows", "1200", "--json"]
    environment = os.environ | {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "driftloop", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["transport"] == "kafka"
    assert report["events"] == {
        "predictions": 3_000,
        "labels": 3_000,
        "joined": 3_000,
        "dead_lettered": 0,
        "lost": 0,
        "duplicated": 0,
    }
    error = next(found for found in report["drift"] if found["signal"] == "error")
    assert (error["direction"], 2_300 <= error["change_row"] <= 2_500, 2_400 <= error["detected_row"] <= 2_600) == (
        "worse",
        True,
        True,
    )
    assert report["jobs"][0]["outcome"] == "promoted"
    assert report["accuracy_by_1000"]["adapted"][-1] > 0.9
    assert report["accuracy_by_1000"]["frozen"][-1] < 0.2
    assert (tmp_path / "driftloop-demo" / "accuracy.png").exists()
    left = [name for name in partition_counts(settings, admin_client(settings)) if name.startswith("demo-")]
    assert left == [], "the demo takes its topics with it"


@pytest.mark.kafka
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_demo_leaves_neither_its_service_nor_its_broker(local_kafka: None, tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_KAFKA__")}
    # A state folder of its own: a broker of the user's that runs would be used, and must not end.
    environment = variables | {"XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    order = [sys.executable, "-m", "driftloop", "demo", "--data", str(table_file(tmp_path)), "--label", "y", "--json"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(order, cwd=tmp_path, env=environment, stderr=log) as demo:
        try:
            started = children(demo, tmp_path / "log")
        finally:
            demo.kill()
        assert demo.wait(60) != 0
    gone, alive = psutil.wait_procs(started, timeout=60)
    for process in alive:
        process.kill()
    assert (len(gone), alive) == (2, [])


def children(demo: subprocess.Popen[bytes], log: Path, timeout_s: float = 60.0) -> list[psutil.Process]:
    """Wait until the demo runs its broker and its service, and return them."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = [one for one in psutil.Process(demo.pid).children() if is_lasting(one)]
        if len(found) == 2:
            return found
        assert demo.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.1)


def is_lasting(child: psutil.Process) -> bool:
    """Say whether it is the broker or the service itself, by now, and not a step of their start."""
    try:
        order = child.cmdline()
    except psutil.Error:
        return False
    return bool({"kafka.Kafka", "serve"} & set(order)) and "driftloop.streams.tied_process" not in order
