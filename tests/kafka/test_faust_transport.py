"""The contract with Faust 0.15.3: what our transport overrides is there, still needs it, and works on a real broker."""

import asyncio
import inspect
import threading
import time
from importlib.metadata import entry_points
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from intervaltree import IntervalTree

from driftloop.settings import Settings
from driftloop.streams.client_settings import producer_properties, transactional_properties
from driftloop.streams.faust_settings import App, credentials, faust_options, group_of
from driftloop.streams.faust_transport import CommittedConsumer, CommittedThread, Transport
from driftloop.streams.kafka import KafkaTransport


def committed_after(kind: type[driver.Consumer], transactions: int) -> tuple[int | None, int]:
    """Return the committed offset, and the newest record's, after transactions of one record and its marker each."""
    tp, newest = TP("t", 0), 0
    consumer = object.__new__(kind)
    consumer._gap = {tp: IntervalTree()}
    consumer._acked = {tp: []}
    consumer._acked_index = {tp: set()}
    consumer._committed_offset = {tp: None}
    for number in range(transactions):
        newest = 2 * number
        if number:
            asyncio.run(consumer._add_gap(tp, newest - 1, newest))
        consumer._acked[tp].append(newest)
        consumer._acked_index[tp].add(newest)
    return consumer._new_offset(tp), newest


def test_upstream_still_counts_the_gap_one_too_wide() -> None:
    committed, newest = committed_after(driver.Consumer, 10)
    assert committed is not None
    assert committed < newest, "mended upstream: remove CommittedConsumer._add_gap"


def test_the_override_counts_it_right() -> None:
    committed, newest = committed_after(CommittedConsumer, 10)
    assert committed == newest + 1


def test_what_is_overridden_is_there() -> None:
    assert list(inspect.signature(FaustConsumer._add_gap).parameters) == ["self", "tp", "offset_from", "offset_to"]
    assert "_add_gap(tp, r_offset + 1, offset)" in inspect.getsource(FaustConsumer._drain_messages)
    assert "AIOKafkaConsumerThread(" in inspect.getsource(driver.Consumer._new_consumer_thread)
    assert list(inspect.signature(driver.AIOKafkaConsumerThread._create_worker_consumer).parameters) == ["self", "transport"]
    source = inspect.getsource(AIOKafkaConsumer)
    for name in ("isolation_level=self._isolation_level", "assignors=self._partition_assignment_strategy"):
        assert name in source, "read when the consumer starts, which is after it was made"
    assert issubclass(CommittedThread, driver.AIOKafkaConsumerThread)
    assert Transport.Consumer is CommittedConsumer


def test_the_entry_point_names_the_transport() -> None:
    (found,) = entry_points(group="faust.transports", name="driftloop")
    assert found.load() is Transport


@pytest.mark.parametrize(
    ("kafka", "shown"),
    [
        ({}, "None"),
        ({"security.protocol": "sasl_plaintext", "sasl.username": "u", "sasl.password": "hunter2"}, "username=u"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "hunter2"},
            "u",
        ),
        ({"security.protocol": "ssl"}, "SSLCredentials"),
    ],
)
def test_credentials_go_through_their_object(kafka: dict[str, str], shown: str) -> None:
    found = repr(credentials(kafka))
    assert shown in found
    assert "hunter2" not in found


class Follower:
    """Run an app with one agent in a thread and keep what the agent saw."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.seen: list[bytes] = []
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run(settings, topic)))
        self.stop = threading.Event()

    def __enter__(self) -> "Follower":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()

    async def _run(self, settings: Settings, topic: str) -> None:
        app = App(group_of(settings), **faust_options(settings))

        async def follow(stream: Any) -> None:
            async for event in stream.events():
                self.seen.append(event.message.value)

        channel = app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes)
        app.agent(channel, name="follow")(follow)
        app.finalize()
        await app.start()
        while not self.stop.is_set() and not app.should_stop:
            await asyncio.sleep(0.05)
        await app.stop()

    def wait(self, count: int, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.seen) < count:
            assert time.monotonic() < deadline, f"{len(self.seen)} of {count}"
            time.sleep(0.05)


@pytest.mark.kafka
def test_commits_follow_many_small_transactions_and_aborted_ones_are_not_seen(topics: Settings) -> None:
    topic = topics.topic("drift")
    producer = Producer(transactional_properties(topics, f"{topics.topics.prefix}txn", 10.0))
    producer.init_transactions(30)
    count = 150
    with Follower(topics, topic) as follower:
        for number in range(count):
            producer.begin_transaction()
            producer.produce(topic, value=b"aborted", partition=0)
            producer.flush(5)
            producer.abort_transaction(10)
            producer.begin_transaction()
            producer.produce(topic, value=f"{number}".encode(), partition=0)
            producer.commit_transaction(10)
        follower.wait(count)
        end = KafkaTransport(topics).end_offsets(topic)[0]
        deadline = time.monotonic() + 60
        # The marker after the newest record is passed only with the record after it.
        while KafkaTransport(topics).committed(group_of(topics), topic).get(0) != end - 1:
            assert time.monotonic() < deadline, (KafkaTransport(topics).committed(group_of(topics), topic), end)
            time.sleep(0.2)
    assert follower.seen == [f"{number}".encode() for number in range(count)]


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["lz4", "zstd", "snappy", "gzip"])
def test_compressed_batches_are_read(topics: Settings, codec: str) -> None:
    topic = topics.topic("drift")
    producer = Producer({**producer_properties(topics), "compression.type": codec, "linger.ms": 50})
    values = [b"x" * 500 + str(number).encode() for number in range(50)]
    for value in values:
        producer.produce(topic, value=value, partition=1)
    assert producer.flush(10) == 0
    with Follower(topics, topic) as follower:
        follower.wait(len(values))
    assert follower.seen == values
