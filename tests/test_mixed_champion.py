"""A champion with columns of texts, from its exporter's file to its repair: events carry the texts, and the worker reads them."""

from pathlib import Path

import numpy as np
import pytest

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import encode_json
from driftloop.schemas.config import StoreConfig, WorkerConfig
from driftloop.schemas.events import Event, JobFinished, LabelArrived, ModelRegistered, PredictionMade
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.publishing import NewModel, adopt_model, adopted_signature, promote, register
from driftloop.streams.registry import read_registry
from driftloop.streams.watcher import ModelWatcher
from driftloop.streams.worker import Worker
from driftloop.tests.exported import FOLDER
from driftloop.tests.monitor_logs import START_MS, batch_of, record, small
from driftloop.tests.worker_world import read, request, send

REPAIR = {"repair": {"arms": {"affine": [{"type": "affine"}], "refit": [{"type": "refit"}]}, "gate": {"max_latency_ratio": 100.0}}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        store=StoreConfig(url=str(tmp_path / "store")), recipes=REPAIR, worker=WorkerConfig(heartbeat_s=0.1, job_timeout_s=300.0)
    )


def rows_of(count: int) -> list[dict[str, float | str]]:
    rng = np.random.default_rng(3)
    colours, sizes = ("red", "green", "blue", "pink"), ("small", "large")
    return [
        {
            "amount": float(rng.normal()),
            "age": float(rng.normal()),
            "visits": float(rng.integers(9)),
            "colour": colours[rng.integers(4)],
            "size": sizes[rng.integers(2)],
        }
        for _ in range(count)
    ]


def test_a_forest_over_texts_is_repaired_from_what_events_carry(settings: Settings) -> None:
    transport = MemoryTransport()
    model = adopt_model(settings, FOLDER / "mixed_forest.onnx")
    register(settings, transport, NewModel("m", model.onnx, adopted_signature(model, (), ())))
    promote(settings, transport, ("m", 1), "first")
    watcher = ModelWatcher("m", settings=settings, transport=transport)
    promoted = watcher.poll(5.0)
    assert promoted is not None
    predict, rows = promoted.predictor(), rows_of(400)
    answers = predict.many(rows)
    predictions: list[Event] = [
        PredictionMade(model="m", version=1, prediction_id=f"p{at}", output=answer.output, scores=answer.scores, features=dict(row))
        for at, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]
    # The concept has turned: whatever the champion says, the other is right.
    labels = [LabelArrived(model="m", prediction_id=f"p{at}", label=1 - int(one.output)) for at, one in enumerate(answers)]
    send(settings, transport, "predictions", *predictions)
    send(settings, transport, "labels", *labels)
    send(settings, transport, "jobs", request(settings))
    worker = Worker(settings, transport)
    assert worker.step()
    worker.close()
    (finished,) = [event for event in read(settings, transport, "job-events") if isinstance(event, JobFinished)]
    assert (finished.outcome, finished.version) == ("promoted", 2), finished.reasons
    champion = read_registry(transport, settings).champion("m")
    assert isinstance(champion, ModelRegistered)
    assert champion.signature == promoted.signature
    repaired = watcher.poll(5.0)
    watcher.close()
    assert repaired is not None
    now = [answer.output for answer in repaired.predictor().many(rows)]
    assert np.mean([one != before.output for one, before in zip(now, answers, strict=True)]) > 0.9


def test_the_monitor_takes_events_with_texts() -> None:
    monitor = Monitor(small(), "driftloop.", 0)
    model = adopt_model(Settings(), FOLDER / "mixed_forest.onnx")
    event = ModelRegistered(
        model="m", version=1, digest="d" * 64, uri="u", size_bytes=1, signature=adopted_signature(model, (), ())
    )
    records = [record("models", 0, START_MS, b"m", encode_json(event))]
    for at, row in enumerate(rows_of(20)):
        made = PredictionMade(model="m", version=1, prediction_id=f"p{at}", output=at % 2, features=dict(row))
        records.append(record("predictions", at, START_MS + at, b"m", encode_json(made)))
    effects = monitor.process(batch_of(records))
    assert not effects.dead_letters
    assert effects.counters["predictions"] == 20
