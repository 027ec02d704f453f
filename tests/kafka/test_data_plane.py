"""The data plane on the real broker: outputs, dead letters, commits, restore, refusal of state that does not fit."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from driftloop.schemas.config import DataPlaneConfig
from driftloop.schemas.errors import BrokerUnavailable, SnapshotInvalid
from driftloop.settings import Settings
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport

pytestmark = pytest.mark.kafka
# Recent: the broker deletes segments whose newest record time stamp is beyond retention.
START_MS = int(time.time() * 1000) - 3_600_000
WAIT_S = 30.0


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


def send(settings: Settings, first: int, rows: int, *, turned: bool = False) -> None:
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 5})
    for row in range(first, first + rows):
        right = (row % 10 != 0) != turned
        stamp = START_MS + row * 10
        made = {"model": "m", "version": 1, "prediction_id": str(row), "output": 1, "features": {"x": row % 7}, "ts": stamp / 1000}
        label = {"model": "m", "prediction_id": str(row), "label": 1 if right else 0}
        producer.produce(settings.topic("predictions"), json.dumps(made).encode(), b"m", timestamp=stamp)
        producer.produce(settings.topic("labels"), json.dumps(label).encode(), b"m", timestamp=stamp + 3)
    assert producer.flush(WAIT_S) == 0


def wait_committed(settings: Settings, failures: list[BaseException]) -> None:
    transport = KafkaTransport(settings)
    deadline = time.monotonic() + WAIT_S
    while True:
        if failures:
            raise failures[0]
        ends = {kind: sum(transport.end_offsets(settings.topic(kind)).values()) for kind in ("predictions", "labels")}
        done: dict[str, int] = {}
        # A group's coordinator may still be loading.
        with suppress(BrokerUnavailable):
            for kind in ends:
                done[kind] = sum(transport.committed(settings.monitor_group, settings.topic(kind)).values())
        if done == ends:
            return
        assert time.monotonic() < deadline, (done, ends)
        time.sleep(0.05)


def read(settings: Settings, kind: str) -> list[Any]:
    reader = KafkaTransport(settings).reader([settings.topic(kind)])
    records = []
    while not reader.at_end():
        records += reader.poll(1_000, 0.2)
    reader.close()
    return records


def own(settings: Settings, **changes: Any) -> Settings:
    plane = settings.data_plane.model_copy(update=changes)
    return settings.model_copy(update={"data_plane": DataPlaneConfig(**plane.model_dump())})


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

    def commit_transaction(self, timeout: float) -> None:
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
