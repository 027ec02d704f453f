"""A client in no language of ours: kcat writes predictions and labels as plain JSON, and reads what driftloop says."""

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from driftloop.schemas.codecs import decode
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.schemas.partitions import partition_of
from driftloop.schemas.records import Record
from driftloop.settings import Settings
from driftloop.streams.data_plane import DataPlane
from driftloop.streams.kafka import KafkaTransport

WAIT_S = 60.0
ROWS, CHANGE_ROW = 2_400, 1_400


@pytest.fixture
def kcat(need_command: Callable[[str, str], str]) -> str:
    return need_command("kcat", "kcat")


def kcat_produce(kcat: str, settings: Settings, kind: str, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Send (key, event) pairs as lines of `key|json`."""
    lines = "".join(f"{key}|{json.dumps(event)}\n" for key, event in events)
    order = [
        kcat,
        "-P",
        "-b",
        settings.bootstrap_servers,
        "-t",
        settings.topic(kind),
        "-K",
        "|",
        "-X",
        "partitioner=murmur2_random",
    ]
    subprocess.run(order, input=lines, text=True, capture_output=True, timeout=WAIT_S, check=True)


def kcat_read(kcat: str, settings: Settings, kind: str) -> list[dict[str, Any]]:
    """Return every committed event of a topic."""
    order = [
        kcat,
        "-C",
        "-e",
        "-q",
        "-b",
        settings.bootstrap_servers,
        "-t",
        settings.topic(kind),
        "-X",
        "isolation.level=read_committed",
    ]
    done = subprocess.run(order, text=True, capture_output=True, timeout=WAIT_S, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def read(settings: Settings, kind: str) -> list[Record]:
    reader = KafkaTransport(settings).reader([settings.topic(kind)])
    records: list[Record] = []
    while not reader.at_end():
        records += reader.poll(1000, 0.2)
    reader.close()
    return records


@pytest.mark.kafka
def test_plain_json_from_kcat_is_a_prediction_and_a_label(kcat: str, topics: Settings) -> None:
    models = [f"model-{n}" for n in range(8)]
    made = [
        (model, {"model": model, "version": 1, "prediction_id": f"{model}/{n}", "output": 1, "features": {"a": n / 2}, "more": "x"})
        for model in models
        for n in range(5)
    ]
    labels = [(model, {"model": model, "prediction_id": event["prediction_id"], "label": 0}) for model, event in made]
    kcat_produce(kcat, topics, "predictions", made)
    kcat_produce(kcat, topics, "labels", labels)
    found = read(topics, "predictions")
    assert len(found) == len(made)
    for record in (*found, *read(topics, "labels")):
        assert record.key is not None
        assert record.partition == partition_of(record.key, topics.topics.partitions)
    events = [decode(record.value, PredictionMade, "") for record in found]
    assert {event.prediction_id for event in events} == {event["prediction_id"] for _, event in made}
    for model in models:
        assert [event.features["a"] for event in events if event.model == model] == [0.0, 0.5, 1.0, 1.5, 2.0]
    arrived = [decode(record.value, LabelArrived, "") for record in read(topics, "labels")]
    assert {(event.prediction_id, event.label) for event in arrived} == {(event["prediction_id"], 0) for _, event in made}
    assert len(kcat_read(kcat, topics, "predictions")) == len(made)


@pytest.mark.kafka
def test_kcat_reads_the_drift_that_its_own_events_tell_of(kcat: str, topics: Settings) -> None:
    plane = DataPlane(topics)
    chance = random.Random(7)
    made, labels = [], []
    for row in range(ROWS):
        label = row % 2
        wrong = chance.random() < (0.05 if row < CHANGE_ROW else 0.6)
        event = {"model": "fraud", "version": 1, "prediction_id": str(row), "output": 1 - label if wrong else label}
        made.append(("fraud", {**event, "features": {"a": chance.gauss(0, 1)}}))
        labels.append(("fraud", {"model": "fraud", "prediction_id": str(row), "label": label}))
    kcat_produce(kcat, topics, "predictions", made)
    kcat_produce(kcat, topics, "labels", labels)
    stop = threading.Event()
    thread = threading.Thread(target=plane.run, args=(stop,))
    thread.start()
    opened: list[dict[str, Any]] = []
    deadline = time.monotonic() + WAIT_S
    try:
        while not opened and time.monotonic() < deadline:
            opened = [event for event in kcat_read(kcat, topics, "drift") if event["type"] == "drift_opened"]
    finally:
        stop.set()
        thread.join(WAIT_S)
    (episode,) = [event for event in opened if event["signal"] == "error"]
    assert (episode["model"], episode["version"], episode["direction"]) == ("fraud", 1, "worse")
    assert episode["change_point"]["topic"] == topics.topic("predictions")
    assert abs(episode["change_point"]["offset"] - CHANGE_ROW) <= 100
