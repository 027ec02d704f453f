"""Exactly once under fire: the data plane is killed ten times and stopped once, and what it tells equals, byte for byte, an uninterrupted
run on the same broker and a single pass over the log in memory.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Producer

from driftloop.schemas.config import DataPlaneConfig
from driftloop.schemas.errors import BrokerUnavailable
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.topics import admin_client, ensure_topics
from driftloop.streams.transport import Outgoing, Transport

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
# Recent: the broker deletes segments whose newest record time stamp is beyond retention.
START_MS = int(time.time() * 1000) - 3_600_000
ROWS = 100_000
MODELS = ("a", "b", "c", "d")
KILLS = 11
WAIT_S = 120.0
PAUSE_S = 7.0


def traffic(settings: Settings) -> list[Outgoing]:
    chance = random.Random(7)
    sent, labels = [], []
    predictions_topic, labels_topic = settings.topic("predictions"), settings.topic("labels")
    for row in range(ROWS):
        stamp, model = START_MS + row, MODELS[row % len(MODELS)]
        right = chance.random() < (0.95 if row < ROWS // 2 else 0.5)
        made = {"model": model, "version": 1, "prediction_id": str(row), "output": 1, "features": {"x": chance.gauss(0, 1)}}
        sent.append(Outgoing(predictions_topic, model.encode(), json.dumps(made).encode(), (), stamp))
        delay = chance.choice((-3, 2, 50, 4_000))
        labels.append((stamp + delay, model, {"model": model, "prediction_id": str(row), "label": 1 if right else 0}))
    labels.sort(key=lambda label: label[0])
    return sent + [Outgoing(labels_topic, model.encode(), json.dumps(label).encode(), (), stamp) for stamp, model, label in labels]


def send(settings: Settings, sent: list[Outgoing]) -> None:
    address = {"bootstrap.servers": settings.bootstrap_servers}
    producer = Producer({**address, "partitioner": "murmur2_random", "linger.ms": 5, "queue.buffering.max.messages": 3 * ROWS})
    for one in sent:
        producer.produce(one.topic, one.value, one.key, timestamp=one.timestamp_ms)
    assert producer.flush(WAIT_S) == 0


def with_group(settings: Settings, group: str) -> Settings:
    plane = DataPlaneConfig(
        group=group,
        batch_records=500,
        commit_max_s=0.1,
        commit_records=2_000,
        session_timeout_s=2,
        max_poll_interval_s=30,
        transaction_timeout_s=3,
    )
    return settings.model_copy(update={"data_plane": plane})


def variables(settings: Settings) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_")}
    for name, value in settings.kafka.items():
        found[f"DRIFTLOOP_KAFKA__{name.replace('.', '_').upper()}"] = value
    for section in ("topics", "data_plane"):
        part = getattr(settings, section)
        found |= {f"DRIFTLOOP_{section}__{name}".upper(): str(value) for name, value in part.model_dump().items()}
    return found


def start(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "driftloop.streams.data_plane_main"], env=variables(settings))


def committed(settings: Settings) -> int:
    transport, group = KafkaTransport(settings), settings.monitor_group
    try:
        return sum(sum(transport.committed(group, settings.topic(kind)).values()) for kind in ("predictions", "labels"))
    except BrokerUnavailable:
        return 0


@contextmanager
def kept_alive(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    box = [start(settings)]
    try:
        yield box
    finally:
        box[0].send_signal(signal.SIGCONT)
        box[0].terminate()
        box[0].wait(WAIT_S)


def wait_for(settings: Settings, box: list[subprocess.Popen[bytes]], records: int) -> int:
    deadline = time.monotonic() + WAIT_S
    while (found := committed(settings)) < records:
        if box[0].poll() is not None:
            box[0] = start(settings)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def outputs(transport: Transport, settings: Settings) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    reader = transport.reader([settings.topic("drift"), settings.topic("metrics")])
    while not reader.at_end():
        for record in reader.poll(2_000, 0.2):
            identity = record.key, record.value, dict(record.headers)["ce_id"]
            found.setdefault((record.topic.rpartition(".")[2], record.partition), []).append(identity)
    reader.close()
    return found


def quiet(settings: Settings, sent: list[Outgoing]) -> dict[Any, list[Any]]:
    """Return the outputs of the same log taken in one piece, in memory."""
    transport = MemoryTransport(settings.topics.partitions)
    transport.append(sent)
    plane = MemoryPlane(settings, transport)
    assert plane.step() == len(sent)
    return outputs(transport, settings)


def calm(settings: Settings) -> dict[Any, list[Any]]:
    """Return the outputs of an uninterrupted data plane on the same broker, once all but the inputs is gone."""
    admin = admin_client(settings)
    for future in admin.delete_topics([settings.topic(kind) for kind in ("drift", "metrics", "state")]).values():
        future.result()
    deadline = time.monotonic() + WAIT_S
    while len(ensure_topics(settings)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    with kept_alive(settings) as box:
        wait_for(settings, box, 2 * ROWS)
    return outputs(KafkaTransport(settings), settings)


def portions(sent: list[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield the log in pieces of record time, one for each life.

    A data plane at full speed ends the whole log between two looks of a busy machine, and no kill would meet it at work. Each piece is
    sent while no data plane runs, so that the order it is taken in hangs on nothing but the log.
    """
    ends = [START_MS + ROWS * number // (KILLS + 1) for number in range(1, KILLS + 1)]
    for begin_ms, end_ms in zip([0, *ends], [*ends, 1 << 62], strict=True):
        yield [one for one in sent if begin_ms <= (one.timestamp_ms or 0) < end_ms]


def live(settings: Settings, chance: random.Random, piece: range, *, stop: bool) -> int:
    """Run a data plane into a piece of the log and kill it at a moment of its own; return how many records it had committed.

    One that is stopped for too long has to find its way back to the piece's end first.
    """
    box = [start(settings)]
    try:
        wait_for(settings, box, chance.randrange(piece.start + 1, piece.start + len(piece) // 2))
        time.sleep(chance.random() * 0.1)
        if stop:
            box[0].send_signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            box[0].send_signal(signal.SIGCONT)
            wait_for(settings, box, piece.stop)
        return committed(settings)
    finally:
        box[0].kill()
        box[0].wait()


def test_kills_and_a_stop_leave_no_trace(topics: Settings) -> None:
    chance = random.Random(11)
    fire = with_group(topics, "fire")
    sent = traffic(fire)
    at_work, arrived = 0, 0
    for number, records in enumerate(portions(sent)):
        send(fire, records)
        piece = range(arrived, arrived + len(records))
        arrived = piece.stop
        if number < KILLS:
            at_work += live(fire, chance, piece, stop=number == KILLS // 2) < arrived
    assert arrived == 2 * ROWS
    assert at_work > 0
    with kept_alive(fire) as box:
        wait_for(fire, box, 2 * ROWS)
    under_fire = outputs(KafkaTransport(fire), fire)
    assert committed(fire) == 2 * ROWS
    assert under_fire == calm(with_group(topics, "calm"))
    assert under_fire == quiet(fire, sent)
    totals = [json.loads(value) for (kind, _), found in under_fire.items() if kind == "metrics" for _, value, _ in found]
    assert {model: max(one["total_rows"] for one in totals if one["model"] == model) for model in MODELS} == dict.fromkeys(
        MODELS, ROWS // len(MODELS)
    )
    assert any(kind == "drift" for kind, _ in under_fire)
