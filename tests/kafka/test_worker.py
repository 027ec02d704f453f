"""The worker on the real broker: killed in the middle of a job, the job still ends once."""

import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from confluent_kafka import Producer

from driftloop.schemas.events import (
    Event,
    JobFailed,
    JobFinished,
    JobProgressed,
    JobStarted,
    ModelPromoted,
    ModelRegistered,
)
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.tests.data_plane_world import read as read_plane
from driftloop.tests.worker_world import read, request, send, serve_a_champion, turn_the_concept

pytestmark = pytest.mark.kafka

WORKER = """
import logging, signal, threading
from driftloop.settings import load_settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.worker import Worker
logging.basicConfig(level="INFO")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = load_settings()
Worker(settings, KafkaTransport(settings)).run(stop)
"""


def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    loose = '{"gate": {"max_latency_ratio": 100}}'
    variables = {**environment, "DRIFTLOOP_RECIPES__REPAIR": loose, "DRIFTLOOP_WORKER__HEARTBEAT_S": "0.1"}
    return subprocess.Popen([sys.executable, "-c", WORKER], env=variables)


def wait_for(settings: Settings, transport: KafkaTransport, kind: type[Event], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not any(isinstance(event, kind) for event in read(settings, transport, "job-events")):
        assert time.monotonic() < deadline, f"no {kind.__name__} in time"
        time.sleep(0.1)


def test_a_worker_killed_in_the_middle_of_a_job_ends_it_once(topics: Settings, environment: dict[str, str]) -> None:
    transport = KafkaTransport(topics)
    serve_a_champion(topics, transport)
    turn_the_concept(topics, transport)
    send(topics, transport, "jobs", request(topics), request(topics))
    first = start(environment)
    try:
        wait_for(topics, transport, JobProgressed)
        children = psutil.Process(first.pid).children(recursive=True)
        assert children, "the job runs in a child"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE], "the child dies with the worker"
    assert not any(isinstance(event, JobFinished) for event in read(topics, transport, "job-events"))
    second = start(environment)
    try:
        wait_for(topics, transport, JobFinished)
        wait_until_committed(topics, transport)
    finally:
        second.terminate()
        assert second.wait(60) == 0
    told = read(topics, transport, "job-events")
    (finished,) = [event for event in told if isinstance(event, JobFinished)]
    assert (finished.outcome, finished.version) == ("promoted", 2), finished.reasons
    assert [event.attempt for event in told if isinstance(event, JobStarted)] == [1, 2]
    models = read(topics, transport, "models")
    assert [event.version for event in models if isinstance(event, ModelRegistered)] == [1, 2]
    assert [event.version for event in models if isinstance(event, ModelPromoted)] == [1, 2]


def test_a_record_larger_than_its_dead_letter_may_be_ends_no_worker(topics: Settings, environment: dict[str, str]) -> None:
    transport = KafkaTransport(topics)
    # Compressed it fits the jobs topic; one of them is no smaller compressed.
    client = Producer({"bootstrap.servers": topics.bootstrap_servers, "message.max.bytes": 10_000_000, "compression.type": "lz4"})
    for value in (b"{" + b"0" * 5_000_000, b"{" + random.Random(1).randbytes(1_010_000).hex().encode()[:1_010_000]):
        client.produce(topics.topic("jobs"), value, b"nobody")
    assert client.flush(20) == 0
    send(topics, transport, "jobs", request(topics, "after", model="nobody"))
    worker = start(environment)
    try:
        wait_for(topics, transport, JobFailed)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    reader = transport.reader([topics.topic("jobs.dlq")])
    letters = []
    while not reader.at_end():
        letters += reader.poll(10, 0.2)
    reader.close()
    told = [{name.removeprefix("__dlq.errors."): text for name, text in letter.headers} for letter in letters]
    assert [(one["disposition"], one["size_bytes"]) for one in told] == [(b"malformed", b"5000001"), (b"malformed", b"1010001")]


def wait_until_committed(settings: Settings, transport: KafkaTransport, timeout_s: float = 60.0) -> None:
    """Wait until both requests lie behind the group's offset: the second one, of the same id, must have been passed over."""
    deadline = time.monotonic() + timeout_s
    topic = settings.topic("jobs")
    # Not the ends of the partitions: behind the requests lie markers of the transactions that a new worker aborts.
    ends = {record.partition: record.offset + 1 for record in read_plane(settings, "jobs")}
    while {part: at for part, at in transport.committed(settings.worker_group, topic).items() if part in ends} != ends:
        assert time.monotonic() < deadline
        time.sleep(0.1)
