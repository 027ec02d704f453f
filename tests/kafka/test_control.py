"""The Faust control plane on the real broker: jobs asked for once, bad records set aside, memory found again."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import decode
from driftloop.schemas.events import (
    AlertEvent,
    DriftOpened,
    DriftUpdated,
    Event,
    JobCommand,
    JobFinished,
)
from driftloop.settings import Settings
from driftloop.streams.control import ControlPlane
from driftloop.streams.faust_settings import faust_options
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.transport import Outgoing
from driftloop.tests.made_drift import drift_opened, drift_updated

pytestmark = pytest.mark.kafka


def opened(rows: int, model: str = "m") -> DriftOpened:
    return drift_opened(rows, model, f"{model}-e1")


def updated(rows: int, model: str = "m") -> DriftUpdated:
    return drift_updated(rows, model, f"{model}-e1")


def finished(job_id: str, model: str = "m") -> JobFinished:
    return JobFinished(model=model, job_id=job_id, recipe="repair", outcome="rejected", reasons=("r",), duration_s=1.0)


def send(settings: Settings, kind: str, *events: Event) -> None:
    sender = KafkaTransport(settings).sender()
    for event in events:
        sender.send(Outgoing(settings.topic(kind), *encode_event(event, 0.0)))
    assert sender.flush(10) == 0
    sender.close()


def read_all(settings: Settings, kind: str) -> list[bytes | None]:
    reader = KafkaTransport(settings).reader([settings.topic(kind)])
    values: list[bytes | None] = []
    try:
        while True:
            records = reader.poll(1000, 0.1)
            values += [record.value for record in records]
            if not records and reader.at_end():
                return values
    finally:
        reader.close()


def jobs(settings: Settings) -> list[str]:
    return sorted(decode(value, JobCommand, "jobs").job_id for value in read_all(settings, "jobs"))


def wait_for(check: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.05)


@contextmanager
def control(settings: Settings) -> Iterator[ControlPlane]:
    plane, stop, problems = ControlPlane(settings), threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            plane.run(stop)
        except BaseException as problem:  # noqa: BLE001 - shown by the assertion below
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert plane.ready.wait(60), problems
        yield plane
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert problems == []


def test_a_drift_asks_for_jobs_and_alerts_once_across_restarts(topics: Settings) -> None:
    with control(topics):
        send(topics, "drift", opened(10), updated(300))
        wait_for(lambda: jobs(topics) == ["m-e1-300"])
        send(topics, "drift", updated(2000))
    with control(topics):
        time.sleep(0.5)
        assert jobs(topics) == ["m-e1-300"]
        send(topics, "job-events", finished("m-e1-300"))
        wait_for(lambda: jobs(topics) == ["m-e1-2000", "m-e1-300"])
    with control(topics):
        time.sleep(0.5)
    assert jobs(topics) == ["m-e1-2000", "m-e1-300"]
    alerts = [decode(value, AlertEvent, "alerts") for value in read_all(topics, "alerts")]
    assert [alert.alert_id for alert in alerts] == ["drift-m-e1"]


def test_a_person_resolves_an_alert_from_the_command_line(topics: Settings) -> None:
    send(topics, "drift", opened(10))
    with control(topics):
        wait_for(lambda: len(read_all(topics, "alerts")) == 1)
    place = {
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": topics.bootstrap_servers,
        "DRIFTLOOP_TOPICS__PREFIX": topics.topics.prefix,
        "DRIFTLOOP_TOPICS__PARTITIONS": str(topics.topics.partitions),
    }
    listed = CliRunner().invoke(cli.app, ["alerts", "ls", "--json"], env=place)
    assert [(one["alert_id"], one["state"]) for one in json.loads(listed.stdout)] == [("drift-m-e1", "open")]
    for code in (0, 4):
        assert CliRunner().invoke(cli.app, ["alerts", "resolve", "drift-m-e1"], env=place).exit_code == code
    assert CliRunner().invoke(cli.app, ["alerts", "resolve", "drift-none"], env=place).exit_code == 3
    assert json.loads(CliRunner().invoke(cli.app, ["alerts", "ls", "--json"], env=place).stdout) == []
    everything = json.loads(CliRunner().invoke(cli.app, ["alerts", "ls", "--all", "--json"], env=place).stdout)
    assert [(one["state"], one["resolved_by"]) for one in everything] == [("resolved", "user")]


def test_what_happened_while_it_was_away_is_made_up_for(topics: Settings) -> None:
    send(topics, "drift", opened(400), opened(10, "other"))
    with control(topics):
        wait_for(lambda: jobs(topics) == ["m-e1-300"])


def test_a_bad_record_is_set_aside_and_the_next_is_handled(topics: Settings) -> None:
    with control(topics):
        sender = KafkaTransport(topics).sender()
        for value in (b"", b"{", b"\xff\xfe", None, b'{"type":"drift_opened"}', b"[" * 100_000):
            sender.send(Outgoing(topics.topic("drift"), b"m", value))
        sender.flush(10)
        sender.close()
        send(topics, "drift", opened(300))
        wait_for(lambda: jobs(topics) == ["m-e1-300"])
        wait_for(lambda: len(read_all(topics, "jobs.dlq")) == 6)


def test_no_secret_reaches_output_or_log(
    topics: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-canary"
    address = topics.bootstrap_servers
    named = topics.model_copy(update={"kafka": {**topics.kafka, "bootstrap.servers": f"user:{secret}@{address}"}})
    options = faust_options(
        named.model_copy(
            update={
                "kafka": {
                    **named.kafka,
                    "security.protocol": "sasl_plaintext",
                    "sasl.username": "user",
                    "sasl.password": secret,
                }
            }
        ),
    )
    assert secret not in repr(options)
    assert options["broker_credentials"].password == secret
    with control(topics):
        pass
    shown = capfd.readouterr()
    assert secret not in caplog.text + shown.out + shown.err
    assert "ƒaµS†" not in shown.out + shown.err
