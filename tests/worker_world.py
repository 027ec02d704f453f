"""A small world for worker tests: a champion that learnt one concept, and a log of rows that follow the opposite one."""

from functools import cache
from typing import Any

import numpy as np

from driftloop.compression.small_model import SmallModelConfig, train_small_model
from driftloop.compression.store import ArtifactStore
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import decode
from driftloop.schemas.events import (
    Event,
    JobEvent,
    JobRequested,
    LabelArrived,
    ModelEvent,
    PredictionMade,
    RowRange,
    Signature,
)
from driftloop.schemas.partitions import partition_of
from driftloop.schemas.recipes import Finetune
from driftloop.schemas.rows import Rows
from driftloop.settings import Settings
from driftloop.streams.publishing import NewModel, promote, register
from driftloop.streams.transport import Outgoing, Transport

SIGNATURE = Signature(task="classification", features=("a", "b"), classes=("no", "yes"))

QUICK_ARMS = {
    "finetune": [{"type": "finetune", "epochs": 8}],
    "scratch": [{"type": "reset"}, {"type": "finetune", "epochs": 8}],
}


def quick_repair(*arms: str) -> dict[str, Any]:
    """Return recipes in which a repair trains these arms for a short while, and may be slow."""
    return {"repair": {"arms": {name: QUICK_ARMS[name] for name in arms}, "gate": {"max_latency_ratio": 100.0}}}


@cache
def champion_onnx() -> bytes:
    features = np.random.default_rng(1).normal(size=(400, 2)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    rows = Rows(features, labels, np.arange(400, dtype=np.int64))
    return train_small_model(rows, SIGNATURE, SmallModelConfig(widths=(16,), training=Finetune(epochs=5)))


def send(settings: Settings, transport: Transport, kind: str, *events: Event) -> None:
    sender = transport.sender()
    for event in events:
        sender.send(Outgoing(settings.topic(kind), *encode_event(event, 0.0)))
    assert sender.flush(20) == 0
    sender.close()


def serve_a_champion(settings: Settings, transport: Transport, model: str = "m") -> None:
    new = NewModel(model, champion_onnx(), SIGNATURE)
    registered = register(settings, transport, new)
    promote(settings, transport, (model, registered.version), "first")
    assert ArtifactStore(settings.store.url).get(registered.digest) == champion_onnx()


def turn_the_concept(settings: Settings, transport: Transport, rows: int = 400, model: str = "m") -> None:
    features = np.random.default_rng(2).normal(size=(rows, 2)).astype(np.float32)
    predictions, labels = list[Event](), list[Event]()
    for number, (a, b) in enumerate(features.tolist()):
        predictions.append(
            PredictionMade(
                model=model, version=1, prediction_id=f"p{number}", output="yes" if a > 0 else "no", features={"a": a, "b": b}
            )
        )
        labels.append(LabelArrived(model=model, prediction_id=f"p{number}", label="no" if a > 0 else "yes"))
    send(settings, transport, "predictions", *predictions)
    send(settings, transport, "labels", *labels)


def request(settings: Settings, job_id: str = "j1", model: str = "m", recipe: str = "repair") -> JobRequested:
    partition = partition_of(model.encode(), settings.topics.partitions)
    span = RowRange(partition=partition, start_offset=0, labels_start_offset=0)
    return JobRequested(model=model, job_id=job_id, recipe=recipe, requested_by="policy", rows=span)


def read(settings: Settings, transport: Transport, kind: str) -> list[Event]:
    carries = {"job-events": JobEvent, "models": ModelEvent}[kind]
    reader = transport.reader([settings.topic(kind)])
    events: list[Event] = []
    try:
        while not reader.at_end():
            events += [decode(record.value, carries, kind) for record in reader.poll(1000, 0.1)]
    finally:
        reader.close()
    return events
