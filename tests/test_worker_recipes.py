"""Recipes at the worker: one that a request carries is run and kept; what cannot run is told before anything starts."""

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from driftloop.compression.store import ArtifactStore
from driftloop.schemas.config import StoreConfig
from driftloop.schemas.events import JobFailed, JobFinished, ModelRegistered
from driftloop.schemas.recipe_reading import definition_of, recipe_of
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.worker import Worker
from driftloop.tests.worker_world import read, request, send, serve_a_champion, turn_the_concept

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=StoreConfig(url=str(tmp_path / "store")))


def test_a_recipe_that_a_request_carries_is_run_and_kept_in_the_manifest(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    definition = {
        "arms": {"small": [{"type": "quantize", "rows": 100}]},
        "gate": {"max_loss": 1.0, "max_churn": 1.0, "max_size_ratio": 100.0, "max_segment_loss": 1.0},
    }
    asked = msgspec.structs.replace(request(settings, recipe="mine"), definition=definition)
    send(settings, transport, "jobs", asked)
    worker = Worker(settings, transport)
    worker.step()
    worker.close()
    finished = read(settings, transport, "job-events")[-1]
    assert isinstance(finished, JobFinished)
    assert (finished.outcome, finished.recipe, finished.arm) == ("promoted", "mine", "small"), finished.reasons
    registered = read(settings, transport, "models")[2]
    assert isinstance(registered, ModelRegistered)
    manifest = ArtifactStore(settings.store.url).manifest(registered.digest)
    assert manifest.definition == definition_of(recipe_of("mine", definition))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"definition": {"arms": {"a": [{"type": "alchemy"}]}}}, "step type must be one of"),
        ({"options": {"sed": 3}}, "option must be one of seed"),
    ],
)
def test_a_wrong_recipe_fails_before_anything_starts(settings: Settings, wrong: dict[str, Any], words: str) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    send(settings, transport, "jobs", msgspec.structs.replace(request(settings), **wrong))
    worker = Worker(settings, transport)
    worker.step()
    worker.close()
    (failed,) = read(settings, transport, "job-events")
    assert isinstance(failed, JobFailed)
    assert words in failed.message


def test_too_few_rows_are_told_before_a_child_starts(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport, rows=100)
    send(settings, transport, "jobs", request(settings))
    worker = Worker(settings, transport)
    worker.step()
    worker.close()
    _, failed = read(settings, transport, "job-events")
    assert isinstance(failed, JobFailed)
    assert failed.message == "labelled rows must be at least 120 for recipe repair, got 100"


def test_a_worker_that_runs_has_a_child_wait_for_the_next_job_and_leaves_none(settings: Settings) -> None:
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    send(settings, transport, "jobs", request(settings, recipe="int8"))
    worker, stop = Worker(settings, transport), threading.Event()
    running = threading.Thread(target=worker.run, args=(stop,))
    running.start()
    try:
        while not any(isinstance(event, JobFinished) for event in read(settings, transport, "job-events")):
            time.sleep(0.05)
        while (waiting := worker._child._waiting) is None:
            time.sleep(0.05)
        leader = psutil.Process(waiting[2].pid)
    finally:
        stop.set()
        running.join()
    assert worker._child._waiting is None
    assert not leader.is_running()
    assert not waiting[1].parent.exists()
