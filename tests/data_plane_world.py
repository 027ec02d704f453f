"""Traffic for data planes on the real broker, planes in threads, and what they told, to be held against a run in memory."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import Producer

from driftloop.schemas.config import DataPlaneConfig
from driftloop.schemas.errors import BrokerUnavailable
from driftloop.schemas.topics import DATA_PLANE_INPUTS
from driftloop.settings import Settings
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.transport import Outgoing, Transport

# Recent: the broker deletes segments whose newest record time stamp is beyond retention.
START_MS = int(time.time() * 1000) - 3_600_000
WAIT_S = 60.0
MODELS = tuple("abcdefgh")

Told = dict[tuple[str, int], list[tuple[bytes | None, bytes | None, bytes | None]]]


class Slow(Producer):
    """Commit so slowly that a test can interfere."""

    def commit_transaction(self, timeout: float = -1.0) -> None:
        time.sleep(0.1)
        super().commit_transaction(timeout)


@contextmanager
def running(plane: DataPlane) -> Iterator[list[BaseException]]:
    stop, failures = threading.Event(), []

    def run() -> None:
        try:
            plane.run(stop)
        except BaseException as problem:  # noqa: BLE001 - handed to the test
            failures.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def send(settings: Settings, first: int, rows: int, *, turned: bool = False, models: Sequence[str] = ("m",)) -> None:
    producer = Producer({**settings.kafka, "partitioner": "murmur2_random", "linger.ms": 5})
    for row in range(first, first + rows):
        right, name = (row % 10 != 0) != turned, models[row % len(models)]
        stamp, key = START_MS + row * 10, name.encode()
        made = {"model": name, "version": 1, "prediction_id": str(row), "output": 1, "features": {"x": row % 7}, "ts": stamp / 1000}
        label = {"model": name, "prediction_id": str(row), "label": 1 if right else 0}
        producer.produce(settings.topic("predictions"), json.dumps(made).encode(), key, timestamp=stamp)
        producer.produce(settings.topic("labels"), json.dumps(label).encode(), key, timestamp=stamp + 3)
    assert producer.flush(WAIT_S) == 0


def committed(settings: Settings) -> dict[str, dict[int, int]]:
    transport = KafkaTransport(settings)
    return {kind: transport.committed(settings.monitor_group, settings.topic(kind)) for kind in ("predictions", "labels")}


def wait_committed(settings: Settings, failures: list[BaseException], wait_s: float = WAIT_S) -> None:
    transport = KafkaTransport(settings)
    deadline = time.monotonic() + wait_s
    while True:
        if failures:
            raise failures[0]
        ends: dict[str, int] = {}
        done: dict[str, int] = {}
        # A group's coordinator may still be loading, a partition's leader be on its way.
        with suppress(BrokerUnavailable):
            ends = {kind: sum(transport.end_offsets(settings.topic(kind)).values()) for kind in ("predictions", "labels")}
            done = {kind: sum(found.values()) for kind, found in committed(settings).items()}
            if done == ends:
                return
        assert time.monotonic() < deadline, (done, ends)
        time.sleep(0.05)


def read(settings: Settings, *kinds: str, transport: Transport | None = None) -> list[Any]:
    """Return all records of the topics."""
    reader = (KafkaTransport(settings) if transport is None else transport).reader([settings.topic(kind) for kind in kinds])
    records = []
    while not reader.at_end():
        records += reader.poll(1_000, 0.2)
    reader.close()
    return records


def told(settings: Settings, transport: Transport | None = None) -> Told:
    """Return key, value and id of every event by topic and partition."""
    found: Told = {}
    for record in read(settings, "drift", "metrics", transport=transport):
        identity = record.key, record.value, dict(record.headers).get("ce_id")
        found.setdefault((record.topic, record.partition), []).append(identity)
    return found


def told_in_memory(settings: Settings) -> Told:
    """Return what one pass over the same inputs tells."""
    transport = MemoryTransport(settings.topics.partitions)
    transport.append(
        [
            Outgoing(record.topic, record.key, record.value, record.headers, record.timestamp_ms, record.partition)
            for record in read(settings, *DATA_PLANE_INPUTS)
        ]
    )
    MemoryPlane(settings, transport).step()
    return told(settings, transport)


def own(settings: Settings, **changes: Any) -> Settings:
    plane = settings.data_plane.model_copy(update=changes)
    return settings.model_copy(update={"data_plane": DataPlaneConfig(**plane.model_dump())})
