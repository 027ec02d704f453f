"""The traffic of all benchmarks: predictions with 30 numeric features and their labels, made from a seed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from confluent_kafka import Producer

from driftloop.schemas.codecs import MSGPACK, PackedLabel, PackedPrediction, encode_json, encode_msgpack
from driftloop.schemas.config import DataPlaneConfig, TopicsConfig
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.settings import Settings
from driftloop.streams.broker import BrokerConfig, LocalBroker

# What the data plane sets; librdkafka's defaults would cost every client here a factor of two to three.
FETCH = {
    "fetch.message.max.bytes": 2 * 1024**2,
    "max.partition.fetch.bytes": 2 * 1024**2,
    "fetch.max.bytes": 64 * 1024**2,
    "queued.max.messages.kbytes": 262_144,
    "queued.min.messages": 400_000,
    "fetch.wait.max.ms": 20,
}
CONSUME_RECORDS = 5_000
CHUNK_ROWS = 5_000
KINDS = ("predictions", "labels")
Wire = tuple[bytes, bytes, bytes, int]


@dataclass(frozen=True)
class Traffic:
    """Describe one topic set: rows go to the models in turn, a label follows its prediction by `label_delay_rows` in record time."""

    pairs: int
    models: int = 1
    packed: bool = False
    scores: bool = False
    features: int = 30
    label_delay_rows: int = 100
    error_rate: float = 0.1
    seed: int = 7

    @cached_property
    def names(self) -> list[str]:
        return [f"feature_{index:02d}" for index in range(self.features)]

    def start_ms(self) -> int:
        """Return a record time that lies far enough back for every row and its label, one a millisecond, to be in the past."""
        return int(time.time() * 1000) - 2 * (self.pairs + self.label_delay_rows) - 60_000

    def chunks(self, start_ms: int) -> Iterator[tuple[list[Wire], list[Wire]]]:
        """Give (key, prediction id, value, record time in ms) of predictions and of their labels, a few thousand rows at a time."""
        random = np.random.default_rng(self.seed)
        for first in range(0, self.pairs, CHUNK_ROWS):
            rows = range(first, min(first + CHUNK_ROWS, self.pairs))
            values = np.round(random.normal(size=(len(rows), self.features)), 6)
            labels = random.integers(0, 2, len(rows))
            outputs = np.where(random.random(len(rows)) < self.error_rate, 1 - labels, labels).tolist()
            sure = np.round(random.uniform(0.6, 1.0, len(rows)), 4).tolist()
            digits = random.bytes(16 * len(rows)).hex()
            ids = [digits[at : at + 32] for at in range(0, len(digits), 32)]
            predictions = [
                self._prediction(row, start_ms, (ids[at], outputs[at], sure[at]), values[at]) for at, row in enumerate(rows)
            ]
            yield predictions, [self._label(row, start_ms, ids[at], int(labels[at])) for at, row in enumerate(rows)]

    def _model(self, row: int) -> str:
        return f"model-{row % self.models:03d}"

    def _prediction(self, row: int, start_ms: int, said: tuple[str, int, float], values: np.ndarray) -> Wire:
        identity, output, sure = said
        model, at_ms = self._model(row), start_ms + row
        scores = None if not self.scores else ([1 - sure, sure] if output else [sure, 1 - sure])
        if self.packed:
            packed = PackedPrediction(
                model=model,
                version=1,
                prediction_id=identity,
                ts=at_ms / 1000,
                output=output,
                features=values.astype("<f4").tobytes(),
                names="\n".join(self.names),
                scores=scores,
            )
            return model.encode(), identity.encode(), encode_msgpack(packed), at_ms
        features = dict(zip(self.names, values.tolist(), strict=True))
        made = PredictionMade(
            model=model,
            version=1,
            prediction_id=identity,
            output=output,
            features=features,
            ts=at_ms / 1000,
            scores=scores,
        )
        return model.encode(), identity.encode(), encode_json(made), at_ms

    def _label(self, row: int, start_ms: int, identity: str, label: int) -> Wire:
        model, at_ms = self._model(row), start_ms + row + self.label_delay_rows
        if self.packed:
            value = encode_msgpack(PackedLabel(model=model, prediction_id=identity, label=label, ts=at_ms / 1000))
        else:
            value = encode_json(LabelArrived(model=model, prediction_id=identity, label=label, ts=at_ms / 1000))
        return model.encode(), identity.encode(), value, at_ms


def settings_of(bootstrap: str, prefix: str, group: str = "monitor") -> Settings:
    """Return the default settings with topics and a group of their own."""
    return Settings(
        kafka={"bootstrap.servers": bootstrap}, topics=TopicsConfig(prefix=prefix), data_plane=DataPlaneConfig(group=group)
    )


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment in which another process reads the same settings."""
    return {
        **{
            name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_") or name == "DRIFTLOOP_KAFKA_LIBS"
        },
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "DRIFTLOOP_TOPICS__PREFIX": settings.topics.prefix,
        "DRIFTLOOP_DATA_PLANE__GROUP": settings.data_plane.group,
    }


def preload(settings: Settings, traffic: Traffic, kinds: tuple[str, ...] = KINDS) -> float:
    """Make all topics and fill predictions and labels (lz4, Java's partitioner, advancing time stamps); return bytes per pair."""
    from driftloop.streams.topics import ensure_topics

    ensure_topics(settings)
    return fill(settings, traffic, kinds)


def fill(settings: Settings, traffic: Traffic, kinds: tuple[str, ...] = KINDS) -> float:
    """Add the traffic to topics that exist; return bytes per pair."""
    producer = Producer(
        {
            **settings.kafka,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 1_048_576,
        }
    )
    # The SDK names its format; a foreign producer of plain JSON sends no headers.
    headers = [("content-type", MSGPACK.encode())] if traffic.packed else []
    size_bytes = 0
    for predictions, answers in traffic.chunks(traffic.start_ms()):
        for kind, wires in zip(KINDS, (predictions, answers), strict=True):
            topic = settings.topic(kind)
            for key, _, value, at_ms in wires if kind in kinds else ():
                size_bytes += len(value)
                _send(producer, {"topic": topic, "key": key, "value": value, "timestamp": at_ms, "headers": headers})
    left = producer.flush(120)
    if left:
        raise RuntimeError(f"all records must be acknowledged, got {left} that are not")
    return size_bytes / traffic.pairs


def forget_state(settings: Settings) -> None:
    """Empty the state topic, since a data plane refuses a new group beside state that an earlier one left."""
    from driftloop.streams.topics import admin_client, ensure_topics

    name, admin = settings.topic("state"), admin_client(settings)
    admin.delete_topics([name])[name].result()
    while name in admin.list_topics(timeout=10).topics:
        time.sleep(0.05)
    ensure_topics(settings)


def _send(producer: Producer, record: dict[str, Any]) -> None:
    while True:
        try:
            return producer.produce(**record)
        except BufferError:
            producer.poll(0.05)


@contextmanager
def broker(bootstrap: str | None, cpus: set[int]) -> Iterator[str]:
    """Give the address of the broker: the one named, or a local one on `cpus` whose data is gone afterwards."""
    if bootstrap is not None:
        yield bootstrap
        return
    mine = os.sched_getaffinity(0)
    with TemporaryDirectory(prefix="driftloop-benchmark-") as folder:
        local = LocalBroker(BrokerConfig(data_dir=Path(folder)))
        os.sched_setaffinity(0, cpus)
        try:
            address = local.start()
            os.sched_setaffinity(0, mine)
            yield address.bootstrap_servers
        finally:
            local.stop()


def cpus_apart() -> tuple[set[int], set[int]]:
    """Return the CPUs of the broker and two for each client in turn; they share where there are fewer than four."""
    allowed = sorted(os.sched_getaffinity(0))
    clients = set(allowed[-2:])
    return (set(allowed) - clients if len(allowed) >= 4 else set(allowed)), clients


def described(traffic: Traffic) -> dict[str, object]:
    """Return the traffic as plain values."""
    return asdict(traffic)
