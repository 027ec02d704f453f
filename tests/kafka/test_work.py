"""Work on the real broker when processes die, stop or lose an answer: each record's outputs appear once."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from driftloop.schemas.records import Record
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.kafka_work import KafkaWork
from driftloop.streams.transport import Outgoing, Work

pytestmark = pytest.mark.kafka
WAIT_S = 60.0

PROGRAM = """
import sys
from driftloop.settings import load_settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.transport import Outgoing
settings = load_settings()
work = KafkaTransport(settings).work(settings.topics.prefix + "g", settings.topic("jobs"), sys.argv[1])
record = None
while record is None:
    record = work.take(1.0)
print(work.attempt(record), flush=True)
sys.stdin.readline()
outputs = [Outgoing(settings.topic("job-events"), b"k", b"child")]
print(work.finish(record, outputs), flush=True)
"""


def group(settings: Settings) -> str:
    return settings.topics.prefix + "g"


def send_job(settings: Settings) -> None:
    sender = KafkaTransport(settings).sender()
    sender.send(Outgoing(settings.topic("jobs"), b"fraud", b"job"))
    assert sender.flush(WAIT_S) == 0
    sender.close()


def member(settings: Settings, slot: str) -> KafkaWork:
    work = KafkaTransport(settings).work(group(settings), settings.topic("jobs"), slot)
    assert isinstance(work, KafkaWork)
    return work


def take(work: Work) -> Record:
    deadline = time.monotonic() + WAIT_S
    record = None
    while record is None and time.monotonic() < deadline:
        record = work.take(0.5)
    assert record is not None
    return record


def outputs(settings: Settings, count: int = 1) -> list[bytes | None]:
    """Return what is there once `count` are: the end of a partition moves a moment after the commit was acknowledged."""
    values: list[bytes | None] = []
    deadline = time.monotonic() + WAIT_S
    while len(values) < count and time.monotonic() < deadline:
        reader = KafkaTransport(settings).reader([settings.topic("job-events")])
        values = []
        while not reader.at_end():
            values += [record.value for record in reader.poll(100, 0.2)]
        reader.close()
    return values


def answer(settings: Settings, value: bytes) -> list[Outgoing]:
    return [Outgoing(settings.topic("job-events"), b"k", value)]


@contextmanager
def other_process(environment: dict[str, str], slot: str) -> Iterator[subprocess.Popen[str]]:
    order = [sys.executable, "-c", PROGRAM, slot]
    with subprocess.Popen(order, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_what_another_finished_meanwhile_is_not_finished_with_what_follows(topics: Settings) -> None:
    for _ in range(4):
        send_job(topics)
    work = member(topics, "0")
    take(work)
    ahead: list[Record] = []
    while len(ahead) < 3:
        ahead = work.ahead(100)
    other = member(topics, "0")
    assert other.finish(take(other), [Outgoing(topics.topic("job-events"), b"k", b"once")])
    assert work.finish(ahead[-1], [Outgoing(topics.topic("job-events"), b"k", b"twice")]) is False
    assert outputs(topics) == [b"once"]
    work.close()
    other.close()


def test_a_killed_process_is_followed_by_the_next_of_its_slot(topics: Settings, environment: dict[str, str]) -> None:
    send_job(topics)
    with other_process(environment, "0") as process:
        assert line(process) == "1"
        process.send_signal(signal.SIGKILL)
        process.wait()
    work = member(topics, "0")
    record = take(work)
    assert work.attempt(record) == 2
    assert work.finish(record, answer(topics, b"mine"))
    work.close()
    assert outputs(topics) == [b"mine"]


def test_a_process_stopped_past_its_session_does_nothing_when_it_wakes(topics: Settings, environment: dict[str, str]) -> None:
    send_job(topics)
    with other_process(environment, "0") as process:
        assert line(process) == "1"
        process.send_signal(signal.SIGSTOP)
        work = member(topics, "1")
        record = take(work)
        assert work.attempt(record) == 2
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        # When it joins again the group may give the partition back to it: then it may finish, and the other may not.
        deadline = time.monotonic() + WAIT_S
        kept = True
        while process.poll() is None and time.monotonic() < deadline:
            kept = work.keep()
            time.sleep(0.05)
        told = line(process)
    finished = kept and work.finish(record, answer(topics, b"mine"))
    work.close()
    assert (told, finished) in (("False", True), ("True", False))
    assert outputs(topics) == [b"mine" if finished else b"child"]


class LostAnswer:
    """Be a producer whose first commit times out: after it reached the broker, or before."""

    def __init__(self, producer: Any, reaches_broker: bool) -> None:
        self._producer = producer
        self._reaches_broker = reaches_broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout_s: float) -> None:
        if self._reaches_broker:
            self._producer.commit_transaction(timeout_s)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer was lost", retriable=True))


@pytest.mark.parametrize("reaches_broker", [True, False])
def test_a_lost_answer_to_a_commit_is_learnt_from_the_offset(topics: Settings, reaches_broker: bool) -> None:
    send_job(topics)
    work = member(topics, "0")
    record = take(work)
    work._producer = LostAnswer(work._producer, reaches_broker)  # type: ignore[assignment]
    assert work.finish(record, answer(topics, b"once"))
    assert outputs(topics) == [b"once"]
    assert KafkaTransport(topics).committed(group(topics), topics.topic("jobs")) == {record.partition: 1}
    send_job(topics)
    following = take(work)
    assert work.finish(following, answer(topics, b"twice"))
    assert outputs(topics, 2) == [b"once", b"twice"]
    work.close()


CLOSING = """
import time
from driftloop.settings import load_settings
from driftloop.streams.kafka import KafkaTransport
settings = load_settings()
for number in range(40):
    work = KafkaTransport(settings).work(f"{settings.topics.prefix}closing-{number}", settings.topic("jobs"), "0")
    time.sleep(number / 80)
    work.close()
print("closed")
"""


def test_a_member_closes_at_any_moment_of_its_joining(topics: Settings, environment: dict[str, str]) -> None:
    # In a process of its own: where it goes wrong nothing in the process goes on, see close_member.
    done = subprocess.run([sys.executable, "-c", CLOSING], env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "closed\n", done.stderr
