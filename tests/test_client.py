"""The SDK: what it sends, what it refuses, how it counts, and that it never stands in its program's way."""

import json
import math
import os
import random
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

import driftloop
from driftloop.schemas.codecs import decode
from driftloop.schemas.errors import BrokerUnavailable, DriftloopError, EventInvalid, SettingsInvalid
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.schemas.records import Record
from driftloop.settings import Settings
from driftloop.streams.client import Client, ClientConfig, Counters, NullClient, RecordingClient
from driftloop.streams.client_events import new_id
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.transport import Transport

AWAY = "127.0.0.1:9"
WAIT_S = 60.0


def read(transport: Transport, topic: str) -> list[Record]:
    reader = transport.reader([topic])
    records: list[Record] = []
    while not reader.at_end():
        records += reader.poll(1000, 0.2)
    reader.close()
    return records


def memory_client(**config: Any) -> tuple[Client, MemoryTransport, Settings]:
    settings, transport = Settings(), MemoryTransport()
    return Client(settings=settings, transport=transport, config=ClientConfig(**config)), transport, settings


def only(client: RecordingClient) -> Any:
    (event,) = client.events
    return event


def run_program(program: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_ids_are_version_7_unique_and_in_order_of_time() -> None:
    before = time.time_ns() // 1_000_000
    random.seed(0)
    ids = [new_id() for _ in range(1000)]
    random.seed(0)
    ids += [new_id() for _ in range(1000)]
    assert len(set(ids)) == 2000
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)
        assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("form", ["packed", "json"])
def test_a_prediction_comes_out_as_it_went_in(form: Any) -> None:
    client = RecordingClient(ClientConfig(strict=True, format=form))
    given = client.log_prediction(
        "fraud",
        output=1,
        version=3,
        features={"a": 1.5, "b": 2, "c": None},
        scores=[0.25, 0.75],
        segment="north",
        latency_ms=1.5,
        ts=datetime(2026, 1, 1, tzinfo=UTC),
    )
    event = only(client)
    assert event.prediction_id == given
    assert (event.model, event.version, event.output, event.scores, event.segment) == ("fraud", 3, 1, [0.25, 0.75], "north")
    assert event.features == {"a": 1.5, "b": 2.0, "c": None}
    assert (event.latency_ms, event.ts) == (1.5, datetime(2026, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("form", ["packed", "json"])
@pytest.mark.parametrize(
    ("features", "read_back"),
    [
        ([1, 2.5, None, math.nan], [1.0, 2.5, None, None]),
        (np.array([1.5, np.nan]), [1.5, None]),
        (np.array([1, 2], np.int64), [1.0, 2.0]),
        ((True, 0.5), [1.0, 0.5]),
        ({"a": math.nan, "b": np.float32(0.5)}, {"a": None, "b": 0.5}),
        ({"a": "red", "b": 1.0, "c": None}, {"a": "red", "b": 1.0, "c": None}),
        ({"two\nlines": 1.0}, {"two\nlines": 1.0}),
        (["red", 1.0], ["red", 1.0]),
    ],
)
def test_features_of_every_form(form: Any, features: Any, read_back: Any) -> None:
    client = RecordingClient(ClientConfig(strict=True, format=form))
    client.log_prediction("m", output=0, features=features)
    assert only(client).features == read_back


@pytest.mark.parametrize(
    ("output", "read_back"), [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.array([True])[0], True), ("cat", "cat")]
)
def test_outputs_and_labels_may_be_numpy_scalars(output: Any, read_back: Any) -> None:
    client = RecordingClient()
    client.log_label("m", client.log_prediction("m", output=output), output)
    assert [client.events[0].output, client.events[1].label] == [read_back, read_back]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"output": math.nan}, "non_finite", "output"),
    ({"output": np.float32("inf")}, "non_finite", "output"),
    ({"output": [1, 2]}, "invalid", "output"),
    ({"output": None}, "invalid", "output"),
    ({"output": 1, "version": -1}, "invalid", "version"),
    ({"output": 1, "version": "2"}, "invalid", "version"),
    ({"output": 1, "features": [1.0, math.inf]}, "non_finite", "features"),
    ({"output": 1, "features": [math.nan, -math.inf]}, "non_finite", "features"),
    ({"output": 1, "features": [1e39]}, "non_finite", "features"),
    ({"output": 1, "features": {"a": "red", "b": 1e39}}, "non_finite", "features"),
    ({"output": 1, "features": np.array([np.inf])}, "non_finite", "features"),
    ({"output": 1, "features": np.ones((2, 2))}, "invalid", "features"),
    ({"output": 1, "features": [object()]}, "invalid", "features"),
    ({"output": 1, "features": "text"}, "invalid", "features"),
    ({"output": 1, "scores": [0.5, math.nan]}, "non_finite", "scores"),
    ({"output": 1, "latency_ms": math.inf}, "non_finite", "latency_ms"),
    ({"output": 1, "segment": 5}, "invalid", "segment"),
    ({"output": 1, "ts": math.nan}, "non_finite", "ts"),
    ({"output": 1, "prediction_id": ""}, "invalid", "prediction_id"),
]


@pytest.mark.parametrize(("fields", "disposition", "named"), BAD)
@pytest.mark.parametrize("form", ["packed", "json"])
def test_bad_predictions_are_counted_or_raised_if_strict(form: Any, fields: dict[str, Any], disposition: str, named: str) -> None:
    told: list[DriftloopError] = []
    client, transport, settings = memory_client(format=form, on_error=told.append)
    client.log_prediction("m", **fields)
    assert client.counters == Counters(sent=1, acked=0, dropped=0, failed=1)
    assert read(transport, settings.topic("predictions")) == []
    assert len(told) == 1
    strict = RecordingClient(ClientConfig(strict=True, format=form))
    with pytest.raises(EventInvalid, match=named) as caught:
        strict.log_prediction("m", **fields)
    assert caught.value.disposition == disposition
    assert strict.events == []


def test_arguments_nobody_thought_of_do_not_reach_the_caller() -> None:
    client, _, _ = memory_client(on_error=lambda problem: 1 / 0)
    client.log_prediction("m", colour="red")  # type: ignore[call-arg]
    client.log_prediction(None, output=1)  # type: ignore[arg-type]
    client.log_prediction("m", output=1, features=5)  # type: ignore[arg-type]
    client.log_prediction("m", output=1, scores=0.5)  # type: ignore[arg-type]
    client.log_label("m", "id", math.nan)
    client.log_label("m", "", 1)
    client.log_label("\ud800", "id", 1)
    assert client.counters == Counters(sent=7, acked=0, dropped=0, failed=7)


def test_labels_and_retractions_share_the_prediction_s_key() -> None:
    client, transport, settings = memory_client()
    given = client.log_prediction("fraud", output=1, features=[1.0])
    client.log_label("fraud", given, 0, ts=1.7e9)
    client.retract_label("fraud", given)
    (made,) = read(transport, settings.topic("predictions"))
    labels = read(transport, settings.topic("labels"))
    assert {record.key for record in (made, *labels)} == {b"fraud"}
    assert {record.partition for record in (made, *labels)} == {made.partition}
    events = [decode(record.value, LabelArrived, "here") for record in labels]
    assert [(event.prediction_id, event.label) for event in events] == [(given, 0), (given, None)]
    assert events[0].ts == 1.7e9
    assert client.flush() == 0
    assert client.counters == Counters(sent=3, acked=3, dropped=0, failed=0)


def test_text_makes_a_prediction_json_and_its_header_says_so() -> None:
    client, transport, settings = memory_client()
    client.log_prediction("m", output=1, features={"a": 1.0})
    client.log_prediction("m", output=1, features={"a": "red"})
    packed, plain = read(transport, settings.topic("predictions"))
    assert packed.headers == (("content-type", b"application/msgpack"),)
    assert plain.headers == (("content-type", b"application/json"),)
    assert json.loads(plain.value or b"")["features"] == {"a": "red"}


def test_doubles_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    null = NullClient()
    assert uuid.UUID(null.log_prediction("m", output=1))
    null.log_label("m", "x", 1)
    assert null.counters == Counters(0, 0, 0, 0)
    monkeypatch.setenv("DRIFTLOOP_DISABLED", "1")
    client, transport, settings = memory_client()
    client.log_prediction("m", output=1)
    assert read(transport, settings.topic("predictions")) == []
    assert {driftloop.Client, driftloop.ClientConfig, driftloop.NullClient, driftloop.RecordingClient} == {
        Client,
        ClientConfig,
        NullClient,
        RecordingClient,
    }


def test_wrong_settings_are_told_when_the_client_is_made() -> None:
    with pytest.raises(SettingsInvalid, match=r"sasl\.pasword"):
        Client(settings=Settings(kafka={"sasl.pasword": "hush"}))
    with pytest.raises(SettingsInvalid, match="acks"):
        Client(settings=Settings(kafka={"acks": "0"}))


def test_a_full_queue_drops_the_newest_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    told: list[DriftloopError] = []
    client = Client(AWAY, settings=Settings(), config=ClientConfig(max_queued=100, on_error=told.append))
    for _ in range(250):
        client.log_prediction("m", output=1, features=[1.0])
    counted = client.counters
    assert (counted.sent, counted.dropped, counted.failed) == (250, 150, 0)
    assert len(told) == 150
    assert caplog.text.count("events are dropped") == 1
    assert client.flush(0.1) == 100
    client.close(0.1)
    assert client.counters == Counters(sent=250, acked=0, dropped=250, failed=0)
    client.log_prediction("m", output=1)
    assert client.counters.dropped == 251


def test_a_strict_client_raises_when_its_queue_is_full() -> None:
    with Client(AWAY, settings=Settings(), config=ClientConfig(max_queued=1, strict=True, exit_flush_s=0.1)) as client:
        client.log_prediction("m", output=1)
        with pytest.raises(BrokerUnavailable, match="1 events wait"):
            client.log_prediction("m", output=1)
    assert client.counters == Counters(sent=2, acked=0, dropped=2, failed=0)


def test_a_program_ends_although_the_broker_is_away() -> None:
    done = run_program(
        "import driftloop, logging\n"
        "logging.getLogger('driftloop.kafka').setLevel(logging.CRITICAL)\n"
        f"client = driftloop.Client('{AWAY}')\n"
        "for _ in range(20): client.log_prediction('m', output=1)\n"
        "print('done', flush=True)\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert f"20 of 20 events were dropped and 0 failed ({AWAY})" in done.stderr


@pytest.mark.kafka
def test_events_reach_the_broker_and_are_accounted_for(topics: Settings) -> None:
    config = ClientConfig(strict=True)
    with Client(settings=topics, config=config) as client:
        ids = [client.log_prediction("m", output=n % 2, features={"a": float(n)}) for n in range(500)]
        for given in ids:
            client.log_label("m", given, 1)
        assert client.flush(WAIT_S) == 0
        assert client.counters == Counters(sent=1000, acked=1000, dropped=0, failed=0)
    transport = KafkaTransport(topics)
    made = [decode(record.value, PredictionMade, "") for record in read(transport, topics.topic("predictions"))]
    assert [event.prediction_id for event in made] == ids
    assert [decode(record.value, LabelArrived, "").prediction_id for record in read(transport, topics.topic("labels"))] == ids


@pytest.mark.kafka
def test_records_that_the_broker_refuses_count_as_failed(topics: Settings) -> None:
    told: list[DriftloopError] = []
    prefix = topics.topics.model_copy(update={"prefix": topics.topics.prefix + "none."})
    kafka = {**topics.kafka, "topic.metadata.propagation.max.ms": "100"}
    settings = topics.model_copy(update={"topics": prefix, "kafka": kafka})
    with Client(settings=settings, config=ClientConfig(on_error=told.append)) as client:
        client.log_prediction("m", output=1)
        client.flush(WAIT_S)
        assert client.counters == Counters(sent=1, acked=0, dropped=0, failed=1)
    assert "nknown topic" in str(told[0])


@pytest.mark.kafka
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_client_made_before_a_fork_sends_from_parent_and_child(topics: Settings, environment: dict[str, str]) -> None:
    done = run_program(
        "import os, sys, driftloop\n"
        "client = driftloop.Client()\n"
        "client.log_prediction('m', output='parent', prediction_id='before')\n"
        "child = os.fork()\n"
        "who = 'parent' if child else 'child'\n"
        "for n in range(50): client.log_prediction('m', output=who)\n"
        "if not child: sys.exit(0 if client.flush(30) == 0 and client.counters == (50, 50, 0, 0) else 3)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "assert client.flush(30) == 0 and client.counters == (51, 51, 0, 0), client.counters\n"
        "sys.exit(status)\n",
        environment,
    )
    assert done.returncode == 0, done.stderr
    made = [decode(record.value, PredictionMade, "") for record in read(KafkaTransport(topics), topics.topic("predictions"))]
    assert [event.output for event in made].count("parent") == 51
    assert [event.output for event in made].count("child") == 50
    assert len({event.prediction_id for event in made}) == 101


@pytest.mark.kafka
def test_a_program_that_just_ends_has_its_events_sent(topics: Settings, environment: dict[str, str]) -> None:
    done = run_program(
        "import driftloop\nclient = driftloop.Client()\nfor _ in range(200): client.log_prediction('m', output=1)\n", environment
    )
    assert done.returncode == 0, done.stderr
    assert "dropped" not in done.stderr
    assert len(read(KafkaTransport(topics), topics.topic("predictions"))) == 200
