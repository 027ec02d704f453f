"""The data plane on the real broker: outputs, dead letters, commits, restore, refusal of state that does not fit."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakSet

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.config import TopicsConfig
from driftloop.schemas.errors import SnapshotInvalid
from driftloop.settings import Settings
from driftloop.streams.client_settings import log
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.topics import admin_client, ensure_topics
from driftloop.tests.data_plane_world import MODELS, WAIT_S, Slow, own, read, running, send, told, told_in_memory, wait_committed

pytestmark = pytest.mark.kafka


def wait_until(met: Callable[[], bool], failures: list[BaseException]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        if failures:
            raise failures[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_drift_is_told_and_a_second_plane_goes_on_where_the_first_stopped(topics: Settings) -> None:
    settings = own(topics)
    first, second = DataPlane(settings), DataPlane(settings)
    with running(first) as failures:
        send(settings, 0, 3_000)
        wait_committed(settings, failures)
    with running(second) as failures:
        send(settings, 3_000, 2_000, turned=True)
        wait_committed(settings, failures)
    assert first.progress.records == 6_000
    assert second.progress.records == 4_000
    opened = [json.loads(record.value) for record in read(settings, "drift")]
    assert [event["signal"] for event in opened if event["type"] == "drift_opened"] == ["error"]
    metrics = [json.loads(record.value) for record in read(settings, "metrics")]
    assert [event["total_rows"] for event in metrics] == [1_000, 2_000, 3_000, 4_000, 5_000]


def test_dead_letters_come_once_with_their_bytes(topics: Settings) -> None:
    settings = own(topics)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    poison = [b"\xff\x00no", b"{", b'{"model":"m"}']
    for value in poison:
        producer.produce(settings.topic("predictions"), value, b"k", partition=1, headers=[("trace", b"\x01")])
    assert producer.flush(WAIT_S) == 0
    with running(DataPlane(settings)) as failures:
        wait_committed(settings, failures)
    with running(DataPlane(settings)) as failures:
        send(settings, 0, 10)
        wait_committed(settings, failures)
    letters = read(settings, "predictions.dlq")
    assert [(record.value, record.partition, dict(record.headers)["trace"]) for record in letters] == [
        (v, 1, b"\x01") for v in poison
    ]
    assert {dict(record.headers)["__dlq.errors.disposition"] for record in letters} == {b"malformed"}


class FailingOnce(Producer):
    """Fail the third commit as a broker's answer that never came would: it was, or was not, carried out."""

    done = 0
    carried_out = True

    def commit_transaction(self, timeout: float = -1.0) -> None:
        FailingOnce.done += 1
        if FailingOnce.done != 3:
            return super().commit_transaction(timeout)
        if FailingOnce.carried_out:
            super().commit_transaction(timeout)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "injected", retriable=True))


@pytest.mark.parametrize("carried_out", [True, False])
def test_an_unknown_outcome_is_learnt_from_the_pointer(topics: Settings, *, carried_out: bool) -> None:
    settings = own(topics, batch_records=200, commit_records=500)
    FailingOnce.done, FailingOnce.carried_out = 0, carried_out
    plane = DataPlane(settings, FailingOnce)
    send(settings, 0, 3_000)
    with running(plane) as failures:
        wait_committed(settings, failures)
    assert plane.progress.rollbacks == 1
    assert FailingOnce.done > 3
    totals = [json.loads(record.value)["total_rows"] for record in read(settings, "metrics")]
    assert totals == [1_000, 2_000, 3_000]


def test_state_without_offsets_is_refused(topics: Settings) -> None:
    settings = own(topics)
    with running(DataPlane(settings)) as failures:
        send(settings, 0, 100)
        wait_committed(settings, failures)
    other = settings.model_copy(update={"data_plane": settings.data_plane.model_copy(update={"group": "other"})})
    plane = DataPlane(other)
    with pytest.raises(SnapshotInvalid, match="group must have offsets"):
        plane.run(threading.Event())


class AbortingOnce(Producer):
    """Fail the third commit as a broker's answer that asks for an abort would."""

    done = 0

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        AbortingOnce.done += 1
        if AbortingOnce.done == 3:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "injected", txn_requires_abort=True))
        super().send_offsets_to_transaction(*arguments)


class Counted(Monitor):
    """A monitor that is counted until its memory is given back."""

    made = 0
    alive: ClassVar[WeakSet[Monitor]] = WeakSet()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Counted.made += 1
        Counted.alive.add(self)


def test_an_aborted_transaction_leaves_no_trace(topics: Settings, caplog: pytest.LogCaptureFixture) -> None:
    # What pytest keeps of the log would keep the problem, its traceback and the monitor in it.
    caplog.set_level(logging.CRITICAL, log.name)
    settings = own(topics, batch_records=200, commit_records=500)
    AbortingOnce.done = Counted.made = 0
    plane = DataPlane(settings, AbortingOnce, Counted)
    send(settings, 0, 3_000)
    with running(plane) as failures:
        wait_committed(settings, failures)
        assert Counted.made > len(Counted.alive) == len(plane.progress.partitions)
    assert plane.progress.rollbacks == 1
    assert AbortingOnce.done > 3
    assert told(settings) == told_in_memory(settings)


def test_a_second_plane_joins_and_the_first_goes_away(settings: Settings) -> None:
    topics = TopicsConfig(prefix=settings.topics.prefix, partitions=4)
    settings = own(settings.model_copy(update={"topics": topics}), session_timeout_s=2, batch_records=100, commit_records=800)
    ensure_topics(settings)
    send(settings, 0, 12_000, models=MODELS)
    send(settings, 12_000, 4_000, turned=True, models=MODELS)
    first, second = DataPlane(settings, Slow), DataPlane(own(settings, slot="1"), Slow)
    with running(first) as first_failures:
        wait_until(lambda: first.progress.commits > 2, first_failures)
        with running(second) as second_failures:
            wait_until(lambda: min(plane.progress.commits for plane in (first, second)) > 4, first_failures)
            assert [len(plane.progress.partitions) for plane in (first, second)] == [2, 2]
        # The one that stays takes the other's partitions once its session has timed out.
        assert not second_failures
        assert sum(plane.progress.records for plane in (first, second)) < 32_000
        wait_until(lambda: len(first.progress.partitions) == 4, first_failures)
        wait_committed(settings, first_failures)
    assert not first_failures
    found = told(settings)
    assert found == told_in_memory(settings)
    ids = Counter(identity for events in found.values() for _, _, identity in events)
    assert set(ids.values()) == {1}
    totals = [json.loads(record.value) for record in read(settings, "metrics")]
    assert {one["model"]: one["total_rows"] for one in totals} == dict.fromkeys(MODELS, 2_000)
    assert sum(one["type"] == "drift_opened" for one in map(json.loads, (r.value for r in read(settings, "drift")))) >= len(MODELS)


def empty_state(settings: Settings) -> None:
    admin = admin_client(settings)
    for future in admin.delete_topics([settings.topic("state")]).values():
        future.result()
    deadline = time.monotonic() + WAIT_S
    while not ensure_topics(settings):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_lost_state_is_refused_or_rebuilt_as_told(topics: Settings) -> None:
    settings = own(topics)
    send(settings, 0, 2_500)
    with running(DataPlane(settings)) as failures:
        wait_committed(settings, failures)
    once = told(settings)
    empty_state(settings)
    with pytest.raises(SnapshotInvalid, match="state must have the manifest"):
        DataPlane(settings).run(threading.Event())
    assert told(settings) == once
    send(settings, 2_500, 1_000)
    with running(DataPlane(own(settings, on_bad_state="rebuild"))) as failures:
        wait_until(lambda: len(read(settings, "metrics")) == 5, failures)
    # Read again from the first record: the same events with the same ids, then what is new.
    again, expected = told(settings), told_in_memory(settings)
    assert {part: events[len(once[part]) :] for part, events in again.items()} == expected
    with running(DataPlane(settings)) as failures:
        wait_committed(settings, failures)
    assert told(settings) == again


def test_a_compacted_state_topic_is_restored_as_well(topics: Settings) -> None:
    settings = own(topics, batch_records=100, commit_records=200)
    resource = ConfigResource(ResourceType.TOPIC, settings.topic("state"))
    for name, value in {"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01"}.items():
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
    # The client must outlive the answer.
    admin = admin_client(settings)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    plane = DataPlane(settings, Slow)
    send(settings, 0, 3_000)
    with running(plane) as failures:
        wait_committed(settings, failures)
        # The open segment keeps its old values.
        wait_until(lambda: 2 * [one.key for one in read(settings, "state")].count(b"manifest") < plane.progress.commits, failures)
    send(settings, 3_000, 2_000, turned=True)
    with running(DataPlane(settings)) as failures:
        wait_committed(settings, failures)
    assert told(settings) == told_in_memory(settings)
