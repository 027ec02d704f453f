"""Exactly once under fire: the data plane is killed ten times and stopped once, the broker is killed three times and away for longer than
its transactions last, and what was told equals, byte for byte, an uninterrupted run on the same broker and a single pass over the log in
memory, dead letters included.
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
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from driftloop.schemas.config import DataPlaneConfig
from driftloop.settings import Settings
from driftloop.streams.broker import BrokerAddress, BrokerConfig, LocalBroker
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
# The lives during which the broker is killed as well, whatever becomes of the data plane.
OUTAGES = {1: "both", 4: "broker", 8: "both"}
WAIT_S = 120.0
PAUSE_S = 7.0
TRANSACTION_S = 3
OUTPUTS = ("drift", "metrics", "predictions.dlq", "labels.dlq")


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
        if row % 50 == 7:
            sent.append(Outgoing(predictions_topic, model.encode(), b"%d{" % row, (("row", b"%d" % row),), stamp))
    labels.sort(key=lambda label: label[0])
    return sent + [Outgoing(labels_topic, model.encode(), json.dumps(label).encode(), (), stamp) for stamp, model, label in labels]


def send(settings: Settings, sent: list[Outgoing]) -> None:
    address = {"bootstrap.servers": settings.bootstrap_servers}
    producer = Producer({**address, "partitioner": "murmur2_random", "linger.ms": 5, "queue.buffering.max.messages": 3 * ROWS})
    for one in sent:
        producer.produce(one.topic, one.value, one.key, timestamp=one.timestamp_ms, headers=list(one.headers))
    assert producer.flush(WAIT_S) == 0


def with_group(settings: Settings, group: str) -> Settings:
    plane = DataPlaneConfig(
        group=group,
        batch_records=500,
        commit_max_s=0.1,
        commit_records=2_000,
        session_timeout_s=2,
        max_poll_interval_s=30,
        transaction_timeout_s=TRANSACTION_S,
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
    """Return how many records the group has done with; asked as a consumer: the admin client's question ends the process now and then
    while a coordinator moves (librdkafka #5040).
    """
    asking = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.monitor_group, "log_level": 0})
    topics = [settings.topic(kind) for kind in ("predictions", "labels")]
    parts = [TopicPartition(topic, part) for topic in topics for part in range(settings.topics.partitions)]
    try:
        return sum(max(0, part.offset) for part in asking.committed(parts, timeout=10.0))
    except KafkaException:
        return 0
    finally:
        asking.close()


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
    reader = transport.reader([settings.topic(kind) for kind in OUTPUTS])
    while not reader.at_end():
        for record in reader.poll(2_000, 0.2):
            headers = tuple((name, value) for name, value in record.headers if name != "ce_time")
            topic = record.topic.removeprefix(settings.topics.prefix)
            found.setdefault((topic, record.partition), []).append((record.key, record.value, headers))
    reader.close()
    return found


def quiet(settings: Settings, sent: list[Outgoing]) -> dict[Any, list[Any]]:
    """Return the outputs of the same log taken in one piece, in memory."""
    transport = MemoryTransport(settings.topics.partitions)
    transport.append(sent)
    plane = MemoryPlane(settings, transport)
    assert plane.step() == len(sent)
    return outputs(transport, settings)


def calm(settings: Settings, records: int) -> dict[Any, list[Any]]:
    """Return the outputs of an uninterrupted data plane on the same broker, once all but the inputs is gone."""
    admin = admin_client(settings)
    gone = [*OUTPUTS, "state"]
    for future in admin.delete_topics([settings.topic(kind) for kind in gone]).values():
        future.result()
    deadline, made = time.monotonic() + WAIT_S, 0
    while made < len(gone):
        made += len(ensure_topics(settings))
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with kept_alive(settings) as box:
        wait_for(settings, box, records)
    return outputs(KafkaTransport(settings), settings)


def portions(sent: list[Outgoing]) -> Iterator[list[Outgoing]]:
    """Yield the log in pieces of record time, one for each life.

    A data plane at full speed ends the whole log between two looks of a busy machine, and no kill would meet it at work. Each piece is
    sent while no data plane runs, so that the order it is taken in hangs on nothing but the log.
    """
    ends = [START_MS + ROWS * number // (KILLS + 1) for number in range(1, KILLS + 1)]
    for begin_ms, end_ms in zip([0, *ends], [*ends, 1 << 62], strict=True):
        yield [one for one in sent if begin_ms <= (one.timestamp_ms or 0) < end_ms]


def kill_broker(local: LocalBroker) -> None:
    """Kill the broker and keep it away for longer than a transaction may last."""
    status = local.status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    time.sleep(TRANSACTION_S + 1.5)
    local.start()


def live(settings: Settings, chance: random.Random, piece: range, fire: str, local: LocalBroker) -> int:
    """Run a data plane into a piece of the log and kill it at a moment of its own; return how many records it had committed.

    One that is stopped for too long has to find its way back to the piece's end first, and so has one whose broker went away.
    """
    box = [start(settings)]
    try:
        wait_for(settings, box, chance.randrange(piece.start + 1, piece.start + len(piece) // 2))
        time.sleep(chance.random() * 0.1)
        if fire == "both":
            # The transaction that is open now is ended by nobody but the broker that starts again.
            box[0].kill()
            kill_broker(local)
        elif fire == "broker":
            kill_broker(local)
            wait_for(settings, box, piece.stop)
        elif fire == "stop":
            box[0].send_signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            box[0].send_signal(signal.SIGCONT)
            wait_for(settings, box, piece.stop)
        return committed(settings)
    finally:
        box[0].kill()
        box[0].wait()


def test_kills_and_outages_leave_no_trace(topics: Settings, broker: BrokerAddress) -> None:
    if broker.data_dir is None:
        pytest.skip("the broker must be one of ours to be killed")
    local = LocalBroker(BrokerConfig(data_dir=broker.data_dir))
    chance = random.Random(11)
    fire = with_group(topics, "fire")
    sent = traffic(fire)
    at_work, arrived = 0, 0
    for number, records in enumerate(portions(sent)):
        send(fire, records)
        piece = range(arrived, arrived + len(records))
        arrived = piece.stop
        if number < KILLS:
            what = "stop" if number == KILLS // 2 else OUTAGES.get(number, "kill")
            at_work += live(fire, chance, piece, what, local) < arrived
    assert arrived == len(sent)
    assert at_work > 0
    with kept_alive(fire) as box:
        wait_for(fire, box, arrived)
    under_fire = outputs(KafkaTransport(fire), fire)
    assert committed(fire) == arrived
    assert under_fire == calm(with_group(topics, "calm"), arrived)
    assert under_fire == quiet(fire, sent)
    totals = [json.loads(value) for (kind, _), found in under_fire.items() if kind == "metrics" for _, value, _ in found]
    assert {model: max(one["total_rows"] for one in totals if one["model"] == model) for model in MODELS} == dict.fromkeys(
        MODELS, ROWS // len(MODELS)
    )
    kinds = [kind for (kind, _), found in under_fire.items() for _ in found]
    assert kinds.count("predictions.dlq") == ROWS // 50
    assert "drift" in kinds
