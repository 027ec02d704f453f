"""Labels and predictions that lie apart are noticed at the first records, and the letters of the labels name the cause."""

import json
import logging

import pytest

from driftloop.schemas.config import MonitorConfig, TopicsConfig
from driftloop.schemas.partitions import partition_of
from driftloop.schemas.records import Batch, Slice
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.placement import Placement
from driftloop.streams.transport import Outgoing

KEY = b"m"
OWN = partition_of(KEY, 4)
OTHER = (OWN + 1) % 4


def batch(kind: str, key: bytes | None = KEY) -> Batch:
    return Batch(**{kind: Slice([b""], [key], [0], [0])})


@pytest.mark.parametrize(("predictions", "labels", "wrong"), [(OWN, OTHER, "labels"), (OTHER, OWN, "predictions")])
def test_the_first_records_tell_once_a_minute(caplog: pytest.LogCaptureFixture, predictions: int, labels: int, wrong: str) -> None:
    now = [0.0]
    placement = Placement(4, lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for at in (0.0, 1.0, 59.0):
            now[0] = at
            placement.note(batch("predictions"), predictions)
            placement.note(batch("labels"), labels)
    [line] = [record.getMessage() for record in caplog.records]
    assert f"b'm' lie in partition [{labels}], its predictions in [{predictions}]" in line
    assert f'the producer of {wrong} must set partitioner: "murmur2_random"' in line


@pytest.mark.parametrize("together", [OWN, OTHER])
def test_what_lies_together_is_not_told(caplog: pytest.LogCaptureFixture, together: int) -> None:
    placement = Placement(4)
    for kind in ("labels", "predictions", "labels"):
        placement.note(batch(kind), together)
        placement.note(batch(kind, None), together)
    assert not caplog.records


@pytest.mark.parametrize("partition", [OWN, OTHER])
def test_an_unjoinable_label_names_the_cause(partition: int) -> None:
    settings = Settings(topics=TopicsConfig(prefix="t.", partitions=4), monitor=MonitorConfig(early_label_s=1.0))
    transport = MemoryTransport(4)
    for number, at in enumerate((1_760_000_000_000, 1_760_000_005_000)):
        value = json.dumps({"model": "m", "prediction_id": f"id-{number}", "label": 1}).encode()
        transport.append([Outgoing("t.labels", KEY, value, (), at, partition)])
    MemoryPlane(settings, transport).step()
    [letter] = transport.reader(["t.labels.dlq"]).poll(10, 0.0)
    said = dict(letter.headers)["__dlq.errors.message"] or b""
    assert (b"murmur2_random" in said) == (partition == OTHER)
    assert dict(letter.headers)["__dlq.errors.disposition"] == b"unjoinable"
