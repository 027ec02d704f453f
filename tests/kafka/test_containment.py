"""No record ends the data plane: whatever the machine does at it, it is one dead letter, and the others are as if nothing had been."""

import signal
import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer

from driftloop.settings import Settings
from driftloop.streams.data_plane import DataPlane
from driftloop.tests.data_plane_world import (
    START_MS,
    WAIT_S,
    committed,
    own,
    read,
    running,
    send,
    told,
    told_in_memory,
    wait_committed,
)
from driftloop.tests.marked_monitors import MARK, Marked

pytestmark = pytest.mark.kafka


def poison(settings: Settings, row: int, what: bytes, kind: str = "predictions") -> None:
    """Send a record in the key of the good ones."""
    producer = Producer({**settings.kafka, "partitioner": "murmur2_random"})
    producer.produce(settings.topic(kind), MARK + what, b"m", headers=[("trace", what)], timestamp=START_MS + row * 10)
    assert producer.flush(WAIT_S) == 0


def letters(settings: Settings) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Return value, own header, disposition and message of every dead letter."""
    found = []
    for record in read(settings, "predictions.dlq", "labels.dlq"):
        headers = dict(record.headers)
        said = headers["__dlq.errors.disposition"], headers["__dlq.errors.message"]
        found.append((record.value, headers["trace"], *said))
    return found


WAYS = {
    b"raise": "ZeroDivisionError: marked",
    b"memory": "MemoryError: marked",
    b"event": "KeyError: ",
    b"save": "OverflowError: marked state",
    b"exit": "the process ended with code 3",
    b"crash": "the process ended by signal 11 (SIGSEGV)",
}


@pytest.mark.parametrize("what", [b"raise", b"memory", b"event", b"save"], ids=bytes.decode)
def test_a_fault_is_one_dead_letter_and_the_plane_goes_on(topics: Settings, what: bytes) -> None:
    settings = own(topics, batch_records=200)
    send(settings, 0, 1_500)
    poison(settings, 1_500, what)
    send(settings, 1_500, 1_000, turned=True)
    poison(settings, 2_500, what, "labels")
    send(settings, 2_500, 500, turned=True)
    plane = DataPlane(settings, monitor=Marked)
    with running(plane) as failures:
        wait_committed(settings, failures)
    assert [(value, trace, why) for value, trace, why, _ in letters(settings)] == [(MARK + what, what, b"processing_error")] * 2
    assert all(message.decode().startswith(WAYS[what]) for _, _, _, message in letters(settings))
    # Garbage at the same places is what the monitor in memory makes of them.
    assert told(settings) == told_in_memory(settings)
    assert 1 <= plane.progress.rollbacks <= 2


def test_many_faults_in_a_row_are_as_many_dead_letters(topics: Settings) -> None:
    settings = own(topics)
    send(settings, 0, 500)
    for _ in range(20):
        poison(settings, 500, b"raise")
    send(settings, 500, 1_000)
    with running(DataPlane(settings, monitor=Marked)) as failures:
        wait_committed(settings, failures)
    assert [why for _, _, why, _ in letters(settings)] == [b"processing_error"] * 20
    assert told(settings) == told_in_memory(settings)


@pytest.mark.parametrize("what", [b"exit", b"crash"], ids=bytes.decode)
def test_what_ends_the_process_ends_it_once(topics: Settings, environment: dict[str, str], what: bytes) -> None:
    settings = own(topics)
    send(settings, 0, 1_000)
    poison(settings, 1_000, what)
    poison(settings, 1_001, what, "labels")
    send(settings, 1_000, 500)
    ended, wanted = [], 2 * 1_500 + 2
    command = [sys.executable, "-m", "driftloop.tests.marked_monitors"]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 2 * WAIT_S
        while sum(sum(found.values()) for found in committed(settings).values()) < wanted:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                ended.append(process.returncode)
                process = subprocess.Popen(command, env=environment)
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert ended == [3 if what == b"exit" else -signal.SIGSEGV]
    assert [(value, why) for value, _, why, _ in letters(settings)] == [(MARK + what, b"processing_error")] * 2
    assert all(message.decode() == WAYS[what] for _, _, _, message in letters(settings))
    assert told(settings) == told_in_memory(settings)


def test_a_clean_end_leaves_nothing_to_be_tried(topics: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings = own(topics)
    for first in (0, 100):
        send(settings, first, 100)
        with running(DataPlane(settings)) as failures:
            wait_committed(settings, failures)
    assert "carefully" not in caplog.text
