"""The data plane in trouble: refused records, faults of the monitor, a slot that was taken, a broker's restart."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from driftloop.schemas.errors import Conflict
from driftloop.settings import Settings
from driftloop.streams import data_plane
from driftloop.streams.broker import BrokerAddress, BrokerConfig, LocalBroker
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.topics import admin_client
from driftloop.tests.data_plane_world import WAIT_S, Slow, committed, own, read, running, send, told, told_in_memory, wait_committed

pytestmark = pytest.mark.kafka
ZEROS_BYTES = 20_000_000


def send_large(settings: Settings, value: bytes, compression: str = "none") -> None:
    address = {"bootstrap.servers": settings.bootstrap_servers, "message.max.bytes": 30_000_000}
    producer = Producer({**address, "compression.type": compression})
    producer.produce(
        settings.topic("predictions"), value, b"k", partition=1, headers=[(f"h{number}", b"v") for number in range(10)]
    )
    assert producer.flush(WAIT_S) == 0


def limit(settings: Settings, kind: str, size_bytes: int) -> None:
    resource = ConfigResource(ResourceType.TOPIC, settings.topic(kind))
    resource.add_incremental_config(ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET))
    # The client must outlive the answer.
    admin = admin_client(settings)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def failure(plane: DataPlane) -> BaseException:
    """Run the plane until it ends by itself."""
    with running(plane) as failures:
        deadline = time.monotonic() + WAIT_S
        while not failures:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return failures[0]


def test_records_at_the_limit_become_dead_letters(topics: Settings) -> None:
    settings = own(topics)
    # What fills an input's limit, and what passes it only compressed.
    large = [os.urandom(1_048_000), b"0" * ZEROS_BYTES]
    send_large(settings, large[0])
    send_large(settings, large[1], "lz4")
    plane = DataPlane(settings)
    with running(plane) as failures:
        wait_committed(settings, failures)
    assert plane.progress.rollbacks == 0
    letters = read(settings, "predictions.dlq")
    told = [dict(letter.headers) for letter in letters]
    assert {one["__dlq.errors.disposition"] for one in told} == {b"too_large"}
    assert told[0]["h9"] == b"v"
    assert letters[0].value == large[0]
    # No dead letter is larger, unpacked, than its topic takes: it would harm its readers as it harmed us.
    assert 1_000_000 < len(letters[1].value) < 2_100_000
    assert large[1].startswith(letters[1].value)
    assert told[1]["__dlq.errors.size_bytes"] == str(ZEROS_BYTES).encode()
    assert told[1]["__dlq.errors.sha256"] == hashlib.sha256(large[1]).hexdigest().encode()


@pytest.mark.parametrize("limit_is_told", [True, False])
def test_a_dead_letter_that_its_topic_does_not_take_is_cut(
    topics: Settings, monkeypatch: pytest.MonkeyPatch, *, limit_is_told: bool
) -> None:
    settings = own(topics)
    limit(settings, "predictions.dlq", 300_000)
    if not limit_is_told:
        monkeypatch.setattr(data_plane, "message_limits", lambda *_: {})
    values = [os.urandom(1_040_000), b"garbage"]
    for value in values:
        send_large(settings, value)
    plane = DataPlane(settings)
    with running(plane) as failures:
        wait_committed(settings, failures)
    letters = read(settings, "predictions.dlq")
    assert [value.startswith(letter.value) for letter, value in zip(letters, values, strict=True)] == [True, True]
    assert 100_000 < len(letters[0].value) < 300_000
    assert dict(letters[0].headers)["__dlq.errors.sha256"] == hashlib.sha256(values[0]).hexdigest().encode()
    assert letters[1].value == b"garbage"
    assert plane.progress.rollbacks == (0 if limit_is_told else 2)


def test_a_batch_that_no_consumer_can_open_is_passed_over(topics: Settings) -> None:
    settings = own(topics)
    send(settings, 0, 500)
    address = {"bootstrap.servers": settings.bootstrap_servers, "message.max.bytes": 1_000_000_000}
    # 4 kB of zstd that hold 120 MB in 4 records: no client of ours takes that much at once.
    packing = {"compression.type": "zstd", "batch.size": 1_000_000_000, "queue.buffering.max.kbytes": 1_000_000, "linger.ms": 500}
    producer = Producer({**address, **packing})
    for _ in range(4):
        producer.produce(settings.topic("predictions"), b"0" * 30_000_000, b"k", partition=1)
    assert producer.flush(WAIT_S) == 0
    send(settings, 500, 1_500)
    with running(DataPlane(settings)) as failures:
        wait_committed(settings, failures)
    letters = read(settings, "predictions.dlq")
    passed_over = [letter for letter in letters if letter.value is None]
    assert passed_over
    assert all(b"that no consumer can open" in dict(letter.headers)["__dlq.errors.message"] for letter in passed_over)
    totals = [json.loads(record.value)["total_rows"] for record in read(settings, "metrics")]
    assert totals == [1_000, 2_000]


class AlwaysAborting(Producer):
    """Ask for an abort at each commit."""

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        raise KafkaException(KafkaError(KafkaError.INVALID_COMMIT_OFFSET_SIZE, "injected", txn_requires_abort=True))


def test_rollbacks_without_end_end_the_plane(topics: Settings) -> None:
    send(topics, 0, 100)
    plane = DataPlane(own(topics), AlwaysAborting)
    problem = failure(plane)
    assert isinstance(problem, Conflict)
    assert str(problem).startswith("transactions must commit, got 8 rollbacks in a row, the last one:")
    assert "injected" in str(problem)
    assert plane.progress.commits == 0
    assert read(topics, "drift", "metrics", "state") == []


@contextmanager
def process(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        started = subprocess.Popen([sys.executable, "-m", "driftloop.streams.data_plane_main"], env=environment, stderr=file)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGCONT)
            started.kill()
        started.wait()


def wait_total(settings: Settings, process: subprocess.Popen[bytes], log: Path, records: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while sum(sum(found.values()) for found in committed(settings).values()) < records:
        assert process.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.05)


Running = tuple[subprocess.Popen[bytes], Path]


def the_one_that_ends(one: Running, other: Running) -> tuple[Running, Running]:
    """Return the process that ended and the one that goes on: Kafka gives a static member's place to the newest that joins, and a
    sleeper whose client notices its own lapse before the broker's answer joins anew.
    """
    deadline = time.monotonic() + WAIT_S
    while one[0].poll() is None and other[0].poll() is None:
        assert time.monotonic() < deadline, one[1].read_text("utf-8") + other[1].read_text("utf-8")
        time.sleep(0.05)
    return (one, other) if one[0].poll() is not None else (other, one)


@pytest.mark.parametrize("in_transaction", [True, False])
def test_of_a_sleeper_and_the_process_that_took_its_slot_one_ends_and_nothing_is_lost(
    topics: Settings, environment: dict[str, str], tmp_path: Path, *, in_transaction: bool
) -> None:
    short = {"SESSION_TIMEOUT_S": "2", "TRANSACTION_TIMEOUT_S": "2", "SLOT": "0"}
    variables = {**environment, **{f"DRIFTLOOP_DATA_PLANE__{name}": value for name, value in short.items()}}
    lazy = {f"DRIFTLOOP_DATA_PLANE__COMMIT_{name}_S": "1.5" for name in ("MIN", "MAX")} if in_transaction else {}
    logs = tmp_path / "first.log", tmp_path / "second.log"
    with process(variables | lazy, logs[0]) as first:
        send(topics, 0, 1_000)
        wait_total(topics, first, logs[0], 2_000)
        send(topics, 1_000, 1_000)
        if not in_transaction:
            wait_total(topics, first, logs[0], 4_000)
        time.sleep(0.3)
        first.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        with process(variables, logs[1]) as second:
            send(topics, 2_000, 1_000)
            wait_total(topics, second, logs[1], 6_000)
            first.send_signal(signal.SIGCONT)
            ended, goes_on = the_one_that_ends((first, logs[0]), (second, logs[1]))
            assert ended[0].returncode == Conflict.exit_code, ended[1].read_text("utf-8")
            assert "slot must belong to one process" in ended[1].read_text("utf-8")
            send(topics, 3_000, 1_000)
            wait_total(topics, *goes_on, 8_000)
            goes_on[0].terminate()
            assert goes_on[0].wait(WAIT_S) == 0, goes_on[1].read_text("utf-8")
    totals = [json.loads(record.value)["total_rows"] for record in read(topics, "metrics")]
    assert totals == [1_000, 2_000, 3_000, 4_000]


def test_a_broker_restart_loses_and_doubles_nothing(topics: Settings, broker: BrokerAddress) -> None:
    if broker.data_dir is None:
        pytest.skip("the broker must be one of ours to be restarted")
    local = LocalBroker(BrokerConfig(data_dir=broker.data_dir))
    settings = own(topics, transaction_timeout_s=4, session_timeout_s=4, batch_records=200, commit_records=500, commit_max_s=0.1)
    send(settings, 0, 3_000)
    send(settings, 3_000, 2_000, turned=True)
    plane = DataPlane(settings, Slow)
    with running(plane) as failures:
        deadline = time.monotonic() + WAIT_S
        while plane.progress.commits < 5:
            assert not failures
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert local.stop()
        assert local.start().bootstrap_servers == broker.bootstrap_servers
        # Clients that an outage left deaf are found out by questions that stay without an answer, one after the other.
        wait_committed(settings, failures, 120.0)
    assert plane.progress.commits > 10
    assert told(settings) == told_in_memory(settings)
