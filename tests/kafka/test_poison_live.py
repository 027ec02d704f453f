"""A data plane at work, good traffic, and every record that once ended it, one after the other and all at once: the good model's events
equal those of a clean run, bad records are dead letters with their reasons, and no process ends by itself.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from driftloop.schemas.errors import BrokerUnavailable
from driftloop.schemas.topics import DATA_PLANE_INPUTS
from driftloop.settings import Settings
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.topics import TIMESTAMP_BOUND, admin_client
from driftloop.streams.transport import Outgoing
from driftloop.tests.data_plane_world import START_MS, WAIT_S, committed, read, send, told

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
GOOD = b"m"
Sent = tuple[str, bytes, bytes, Sequence[tuple[str, bytes]], int]
chance = random.Random(5)
FAR = chance.randbytes(900_000)


def made(model: str, ident: str, **more: Any) -> bytes:
    said = {"model": model, "version": 1, "prediction_id": ident, "output": 1, "features": {"x": 1}}
    return json.dumps(said | more).encode()


def said(model: str, ident: str, label: Any, **more: Any) -> bytes:
    return json.dumps({"model": model, "prediction_id": ident, "label": label} | more).encode()


def registered(model: str) -> bytes:
    signature = {"task": "classification", "features": ["x"], "classes": [0, 1]}
    event = {"type": "model_registered", "model": model, "version": 1, "digest": "d", "uri": "u", "size_bytes": 1}
    return json.dumps(event | {"signature": signature}).encode()


def late(output: float, rows: int, at: int) -> list[Sent]:
    """Return a model that is registered as a classifier once it has answered otherwise."""
    name = f"late{output:g}".replace("+", "")
    rows_made = [("predictions", name.encode(), made(name, str(row), output=output), (), at) for row in range(rows)]
    labels = [("labels", name.encode(), said(name, str(row), 1), (), at + 20) for row in range(rows)]
    return [*rows_made, ("models", name.encode(), registered(name), (), at + 10), *labels]


def versions(at: int) -> list[Sent]:
    return [("predictions", b"v", made("v", str(row), version=row + 1), (), at) for row in range(300)]


def names(at: int) -> list[Sent]:
    return [("predictions", b"n%d" % row, made(f"n{row}", "1"), (), at) for row in range(500)]


def fat_labels(at: int) -> list[Sent]:
    more = {"unknown": "x" * 50_000}
    return [("labels", b"f", said("f", str(row), 1, **more), [("h", b"y" * 100_000)], at) for row in range(100)]


SENDS: dict[str, tuple[Callable[[int], list[Sent]], str]] = {
    "P1 label 2^64": (lambda at: [("labels", GOOD, said("m", "nobody", 2**64), (), at)], "none"),
    "P2 far repeats": (lambda at: [("predictions", b"bad", b"{" + FAR * 4, (), at)], "zstd"),
    "P3 far repeats in a header": (lambda at: [("labels", b"bad", said("bad", "no", 1), [("h", FAR * 4)], at)], "zstd"),
    "P4 registered late": (lambda at: late(1e38, 1, at), "none"),
    "P5 registered late, below 0": (lambda at: late(-7.5, 300, at), "none"),
    "P6 95 MB in 3 kB": (lambda at: [("predictions", b"bad", b"{" + b"0" * 95_000_000, (), at)], "zstd"),
    "P7 microseconds": (lambda at: [("predictions", GOOD, b"garbage", (), at * 1000)], "none"),
    "P7 seconds": (lambda at: [("predictions", GOOD, made("m", "seconds"), (), at // 1000)], "none"),
    "P8 versions": (versions, "none"),
    "P9 names": (names, "none"),
    "P10 fat early labels": (fat_labels, "none"),
}
# Of each time it is sent; what others do is held by bounds, or counted.
LETTERS = {"P1 label 2^64": 1, "P2 far repeats": 1, "P6 95 MB in 3 kB": 1, "P7 microseconds": 1, "P7 seconds": 1}


def poison(settings: Settings, name: str, row: int) -> list[bytes]:
    """Send the records of one kind; return their values."""
    records, codec = SENDS[name][0](START_MS + row * 10), SENDS[name][1]
    large = {"batch.size": 2_000_000_000, "queue.buffering.max.kbytes": 2_000_000} if codec != "none" else {}
    producer = Producer(
        {**settings.kafka, "partitioner": "murmur2_random", "compression.type": codec, "message.max.bytes": 1_000_000_000, **large}
    )
    for kind, key, value, headers, stamp in records:
        producer.produce(settings.topic(kind), value, key, timestamp=stamp, headers=list(headers))
    assert producer.flush(WAIT_S) == 0
    return [value for _, _, value, _, _ in records]


def take_any_time(settings: Settings) -> None:
    """Be a broker that knows no bound of time stamps."""
    admin = admin_client(settings)
    for kind in DATA_PLANE_INPUTS:
        resource = ConfigResource(ResourceType.TOPIC, settings.topic(kind))
        entry = ConfigEntry(TIMESTAMP_BOUND, str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
        resource.add_incremental_config(entry)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()


def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "driftloop.streams.data_plane_main"], env=environment)


def wait_done(settings: Settings, process: subprocess.Popen[bytes], last: str) -> None:
    """Wait until all is committed; what nobody can read has an offset as well."""
    transport, deadline = KafkaTransport(settings), time.monotonic() + 3 * WAIT_S
    while True:
        ends, done = {}, {"not": -1}
        # A group's coordinator may still be loading.
        with suppress(BrokerUnavailable):
            ends = {kind: sum(transport.end_offsets(settings.topic(kind)).values()) for kind in ("predictions", "labels")}
            done = {kind: sum(found.values()) for kind, found in committed(settings).items()}
        if done == ends:
            return
        assert process.poll() is None, f"ended at {last}"
        assert time.monotonic() < deadline, (last, done, ends)
        time.sleep(0.1)


def clean(settings: Settings, bad: set[bytes]) -> list[Any]:
    """Return the good model's events of a run in memory over the same log, in which nothing stands in the place of what is bad."""
    transport = MemoryTransport(settings.topics.partitions)
    ends: dict[tuple[str, int], int] = {}
    for record in read(settings, *DATA_PLANE_INPUTS):
        part = record.topic, record.partition
        # What nobody can read has an offset.
        for _ in range(ends.get(part, 0), record.offset):
            transport.append([Outgoing(record.topic, None, None, (), -1, record.partition)])
        ends[part] = record.offset + 1
        is_good = record.key == GOOD and record.value not in bad
        value, stamp = (record.value, record.timestamp_ms) if is_good else (None, record.timestamp_ms)
        transport.append([Outgoing(record.topic, record.key if is_good else None, value, (), stamp, record.partition)])
    MemoryPlane(settings, transport).step()
    return good_events(settings, transport)


def good_events(settings: Settings, transport: Any = None) -> list[Any]:
    return [event for _, found in sorted(told(settings, transport).items()) for event in found if event[0] == GOOD]


def test_no_record_ends_the_service_or_bends_the_good_models_events(topics: Settings, environment: dict[str, str]) -> None:
    take_any_time(topics)
    bad, row = set(), 0
    for turn in (*((name,) for name in SENDS), tuple(SENDS)):
        process = start(environment)
        try:
            send(topics, row, 150)
            for name in turn:
                bad |= set(poison(topics, name, row + 150))
            send(topics, row + 150, 150, turned=len(turn) > 1)
            row += 300
            wait_done(topics, process, " ".join(turn))
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
            process.wait()
    letters = read(topics, "predictions.dlq", "labels.dlq")
    reasons = [dict(letter.headers).get("__dlq.errors.message", b"") for letter in letters]
    assert all(reasons)
    for name, count in LETTERS.items():
        values = [value[:1_000] for _, _, value, _, _ in SENDS[name][0](START_MS)]
        if name.startswith("P6"):
            found = sum(b"no consumer can open" in reason for reason in reasons)
        else:
            found = sum(any((letter.value or b"")[:1_000].startswith(value) for value in values) for letter in letters)
        assert found == 2 * count, name
    found = good_events(topics)
    assert found == clean(topics, bad)
    totals = [json.loads(value)["total_rows"] for _, value, _ in found if b'"metrics_computed"' in value]
    assert totals == list(range(1_000, row + 1, 1_000))
