"""A transaction that an outage left open: nothing of it is ever read, neither its records nor its offsets, once its id was taken over."""

import os
import signal
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from driftloop.schemas.config import DataPlaneConfig
from driftloop.settings import Settings
from driftloop.streams.broker import BrokerAddress, BrokerConfig, LocalBroker
from driftloop.streams.client_settings import Membership, transactional_properties
from driftloop.streams.kafka_work import KafkaWork
from driftloop.streams.plane_producer import PlaneProducer
from driftloop.tests.data_plane_world import read, send

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
WAIT_S = 60.0
TRANSACTION_S = 2.0


def leave_open(settings: Settings, name: str, kind: str, group: tuple[str, str]) -> None:
    """Send records and offsets in a transaction that nobody ends."""
    producer = Producer(transactional_properties(settings, name, TRANSACTION_S))
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    for partition in range(settings.topics.partitions):
        producer.produce(settings.topic(kind), b"left open", b"k", partition=partition)
    assert producer.flush(WAIT_S) == 0
    member = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group[0]})
    offsets = [TopicPartition(settings.topic(group[1]), partition, 7) for partition in range(settings.topics.partitions)]
    producer.send_offsets_to_transaction(offsets, member.consumer_group_metadata(), WAIT_S)
    member.close()


def committed(settings: Settings, group: str, kind: str) -> list[int]:
    asking = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group, "isolation.level": "read_committed"})
    parts = [TopicPartition(settings.topic(kind), partition) for partition in range(settings.topics.partitions)]
    try:
        return [max(0, part.offset) for part in asking.committed(parts, timeout=WAIT_S)]
    finally:
        asking.close()


def test_what_an_outage_left_open_is_never_committed(topics: Settings, broker: BrokerAddress) -> None:
    if broker.data_dir is None:
        pytest.skip("the broker must be one of ours to be killed")
    settings = topics.model_copy(update={"data_plane": DataPlaneConfig(slot="0", transaction_timeout_s=TRANSACTION_S)})
    send(settings, 0, 10)
    leave_open(settings, f"{settings.monitor_group}-0", "metrics", (settings.monitor_group, "predictions"))
    leave_open(settings, f"{settings.worker_group}-0", "job-events", (settings.worker_group, "jobs"))
    local = LocalBroker(BrokerConfig(data_dir=broker.data_dir))
    os.kill(broker_pid(local), signal.SIGKILL)
    time.sleep(TRANSACTION_S + 2.0)
    local.start()
    plane = PlaneProducer(settings)
    plane.start(WAIT_S)
    work = KafkaWork(settings, Membership(settings.worker_group, "0", 6.0), settings.topic("jobs"))
    # The next commit of the same id would take the records along, and until then nobody learns the group's offsets.
    assert committed(settings, settings.monitor_group, "predictions") == [0, 0]
    assert committed(settings, settings.worker_group, "jobs") == [0, 0]
    plane.begin()
    for partition in range(settings.topics.partitions):
        plane.produce(settings.topic("metrics"), partition, b"k", b"second")
    member = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.monitor_group})
    plane.commit([TopicPartition(settings.topic("predictions"), 0, 3)], member.consumer_group_metadata())
    member.close()
    assert [record.value for record in read(settings, "metrics")] == [b"second"] * settings.topics.partitions
    assert read(settings, "job-events") == []
    plane.close()
    work.close()


def broker_pid(local: LocalBroker) -> int:
    status = local.status()
    assert status is not None
    return status.pid
