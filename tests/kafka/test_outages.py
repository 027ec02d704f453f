"""Clients that came back from an outage deaf, as librdkafka's do after a metadata answer without brokers: each is replaced."""

import threading
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from driftloop.schemas.codecs import MSGPACK
from driftloop.settings import Settings
from driftloop.streams import client_queue, kafka, kafka_work, plane_inputs, pulse
from driftloop.streams.client_queue import KafkaQueue, Room
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.transport import Outgoing
from driftloop.tests.data_plane_world import WAIT_S, own, read, running, send, told, told_in_memory, wait_committed

pytestmark = pytest.mark.kafka
AWAY = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "QUIET_S", 0.3)
    monkeypatch.setattr(pulse, "PATIENCE_S", 0.6)


class Deaf(Consumer):
    """Be deaf after `HEARS` calls that brought something; only the first `DEAF` of those made are."""

    HEARS = 0
    DEAF = 1
    made = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        kind = type(self)
        kind.made += 1
        self.hears = self.HEARS if kind.made <= self.DEAF else 10**9

    def poll(self, timeout: float = -1.0) -> Any:
        return self._heard(super().poll(timeout))

    def consume(self, num_messages: int = 1, timeout: float = -1.0) -> list[Any]:
        found = self._heard(super().consume(num_messages, timeout))
        return [] if found is None else found

    def list_topics(self, *arguments: Any, **named: Any) -> Any:
        if not self.hears:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return super().list_topics(*arguments, **named)

    def _heard(self, found: Any) -> Any:
        if not found:
            return found
        if not self.hears:
            return None
        self.hears -= 1
        return found


def put(transport: KafkaTransport, topic: str, *values: bytes) -> None:
    sender = transport.sender()
    for value in values:
        sender.send(Outgoing(topic, b"m", value))
    assert sender.flush(WAIT_S) == 0
    sender.close()


def test_a_deaf_reader_goes_on_where_it_was(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading(Deaf):
        HEARS = 3

    monkeypatch.setattr(kafka, "Consumer", Reading)
    transport, topic = KafkaTransport(topics), topics.topic("jobs")
    values = [str(number).encode() for number in range(50)]
    put(transport, topic, *values)
    reader = transport.reader([topic])
    found: list[bytes | None] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < len(values) and time.monotonic() < deadline:
        found += [record.value for record in reader.poll(1, 0.1)]
    reader.close()
    assert found == values
    assert Reading.made == 2


def test_a_deaf_worker_joins_anew(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Working(Deaf):
        pass

    monkeypatch.setattr(kafka_work, "Consumer", Working)
    transport, topic = KafkaTransport(topics), topics.topic("jobs")
    put(transport, topic, b"job")
    work = transport.work("g", topic, "0")
    record, deadline = None, time.monotonic() + WAIT_S
    while record is None and time.monotonic() < deadline:
        record = work.take(0.2)
    assert record is not None
    assert work.finish(record, [])
    work.close()
    assert Working.made == 2


def test_a_deaf_data_plane_starts_over_and_loses_nothing(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Planes(Deaf):
        # The first member of the group hears; of the readers (models, predictions, labels) all turn deaf together.
        HEARS = 4
        DEAF = 4

    monkeypatch.setattr(plane_inputs, "Consumer", Planes)
    settings = own(topics, batch_records=100, commit_records=300)
    send(settings, 0, 3_000)
    send(settings, 3_000, 2_000, turned=True)
    plane = DataPlane(settings)
    with running(plane) as failures:
        wait_committed(settings, failures)
    assert Planes.made == 8
    found = told(settings)
    assert found == told_in_memory(settings)
    assert {topic for topic, _ in found} == {settings.topic("drift"), settings.topic("metrics")}


class Haunted(Producer):
    """Be fenced, as the second of its name, by what the first one asked for before it was given up."""

    made = 0

    def __init__(self, properties: dict[str, Any], **named: Any) -> None:
        super().__init__(properties, **named)
        self._properties = properties

    def init_transactions(self, *arguments: Any) -> None:
        super().init_transactions(*arguments)
        Haunted.made += 1
        if Haunted.made == 2:
            Producer({**self._properties, "log_level": 0}).init_transactions(WAIT_S)


def test_a_data_plane_outlives_a_request_of_the_client_it_gave_up(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Planes(Deaf):
        HEARS = 4
        DEAF = 4

    monkeypatch.setattr(plane_inputs, "Consumer", Planes)
    Haunted.made = 0
    settings = own(topics, batch_records=100, commit_records=300)
    send(settings, 0, 3_000)
    with running(DataPlane(settings, Haunted)) as failures:
        wait_committed(settings, failures)
    # The second is fenced while it ends what may have been left open, before it has consumers.
    assert (Haunted.made, Planes.made) == (3, 8)
    assert told(settings) == told_in_memory(settings)


def test_a_commit_that_never_returns_is_given_up(topics: Settings) -> None:
    answered = threading.Event()

    class Hanging(Producer):
        hung = 0

        def send_offsets_to_transaction(self, *arguments: Any) -> None:
            if not Hanging.hung:
                Hanging.hung += 1
                answered.wait()
            super().send_offsets_to_transaction(*arguments)

    settings = own(topics, transaction_timeout_s=2)
    send(settings, 0, 2_000)
    plane = DataPlane(settings, Hanging)
    with running(plane) as failures:
        wait_committed(settings, failures)
    answered.set()
    assert Hanging.hung == 1
    assert told(settings) == told_in_memory(settings)


def test_a_deaf_sdk_moves_what_waits(topics: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_queue, "LOOK_S", 0.1)
    monkeypatch.setattr(client_queue, "STUCK_S", 0.5)
    made: list[Producer] = []

    def make(properties: dict[str, Any], **named: Any) -> Producer:
        lost = {"bootstrap.servers": AWAY, "log_level": 0} if not made else {}
        made.append(Producer({**properties, **lost}, **named))
        return made[-1]

    problems: list[Exception] = []
    queue = KafkaQueue(topics, Room(1_000, 1 << 20), problems.append, make)
    topic = topics.topic("predictions")
    deadline = time.monotonic() + WAIT_S
    sent = 0
    while len(made) < 2 or sent < 200:
        assert time.monotonic() < deadline
        assert queue.put(topic, b"m", str(sent).encode())
        sent += 1
        time.sleep(0.01)
    assert queue.flush(WAIT_S) == 0
    tally = queue.tally()
    queue.close(2.0)
    assert (tally.queued, tally.acked, tally.dropped, tally.failed) == (sent, sent, 0, 0)
    assert problems == []
    records = read(topics, "predictions")
    assert {int(record.value) for record in records} == set(range(sent))
    assert len(records) == sent
    assert all(record.headers == (("content-type", MSGPACK.encode()),) for record in records)
    stamps = {int(record.value): record.timestamp_ms for record in records}
    assert [stamps[number] for number in range(sent)] == sorted(stamps.values())


def test_a_queue_does_not_change_clients_while_the_cluster_is_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_queue, "LOOK_S", 0.05)
    monkeypatch.setattr(client_queue, "STUCK_S", 0.1)
    monkeypatch.setattr(client_queue, "ANSWER_S", 0.1)
    away = settings.model_copy(update={"kafka": {"bootstrap.servers": AWAY, "log_level": "0"}})
    queue = KafkaQueue(away, Room(1_000, 1 << 20), lambda _: None)
    assert queue.put("t", b"m", b"v")
    first = queue._producer
    for _ in range(20):
        time.sleep(0.05)
        assert queue.put("t", b"m", b"v")
    assert queue._producer is first
    assert queue.tally().queued - queue.tally().acked == 21
    queue.close(0.6)
    assert queue.tally().dropped == 21
