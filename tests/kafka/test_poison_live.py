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
from pathlib import Path
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
from driftloop.tests.kafka.test_serve import service, wait_for_line

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


def asked(model: str, job_id: bytes) -> bytes:
    event = {"type": "job_requested", "model": model, "job_id": "@", "recipe": "repair", "requested_by": "policy"}
    return json.dumps(event).encode().replace(b"@", job_id)


def opened(model: str, episode_id: bytes) -> bytes:
    here = {"topic": "t", "partition": 0, "offset": 1, "ts": 1.0}
    rows = {"partition": 0, "start_offset": 0, "labels_start_offset": 0}
    event = {"type": "drift_opened", "model": "?", "episode_id": "@", "version": 1, "signal": "error", "detector": "adwin"}
    event |= {"parameters": {}, "direction": "worse", "severity": "high", "before_mean": 0.1, "after_mean": 0.5, "effect": 1.0}
    event |= {"change_point": here, "detected_at": here, "rows": rows, "labelled_rows": 500}
    return json.dumps(event).encode().replace(b"?", model.encode()).replace(b"@", episode_id)


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
DIGITS = b"9" * 5_000
CONTROL_SENDS: dict[str, tuple[str, bytes]] = {
    "C1 digits after the dash": ("jobs", asked("m", b"e1-" + DIGITS)),
    "C2 garbage": ("jobs", b"\xff\x00"),
    "C3 larger than its dead letter may be": ("jobs", b"{" + random.Random(1).randbytes(1_010_000).hex().encode()[:1_010_000]),
    "C4 episode id of 700 kB": ("drift", opened("m", b"e" * 700_000)),
    "C5 no text": ("drift", opened("\\ud800", b"e1")),
    "C6 infinite effect": ("drift", opened("m", b"e1").replace(b'"effect": 1.0', b'"effect": 1e999')),
    "C7 finished before it began": ("job-events", b'{"type": "job_finished", "model": "m"}'),
}
# Of each time it is sent; what others do is held by bounds, or counted.
LETTERS = {"P1 label 2^64": 1, "P2 far repeats": 1, "P6 95 MB in 3 kB": 1, "P7 microseconds": 1, "P7 seconds": 1}


def poison(settings: Settings, name: str, row: int) -> list[bytes]:
    """Send the records of one kind; return their values."""
    return produce(settings, SENDS[name][0](START_MS + row * 10), SENDS[name][1])


def produce(settings: Settings, records: list[Sent], codec: str) -> list[bytes]:
    large = {"batch.size": 2_000_000_000, "queue.buffering.max.kbytes": 2_000_000} if codec != "none" else {}
    producer = Producer(
        {**settings.kafka, "partitioner": "murmur2_random", "compression.type": codec, "message.max.bytes": 1_000_000_000, **large}
    )
    for kind, key, value, headers, stamp in records:
        producer.produce(settings.topic(kind), value, key, timestamp=max(0, stamp), headers=list(headers))
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


def wait_for(settings: Settings, process: subprocess.Popen[bytes], kind: str, text: bytes) -> None:
    deadline = time.monotonic() + 3 * WAIT_S
    while not any(text in (record.value or b"") for record in read(settings, kind)):
        assert process.poll() is None, f"ended before {text!r}"
        assert time.monotonic() < deadline, text
        time.sleep(0.2)


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
    """Return the good model's events; which of two topics the live edge brings first is not given, so no count of early labels."""
    records = [record for _, found in sorted(told(settings, transport).items()) for record in found if record[0] == GOOD]
    assert len({ident for _, _, ident in records}) == len(records)
    events = [json.loads(value) for _, value, _ in records]
    for event in events:
        event.get("counts", {}).pop("early_labels", None)
    return events


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
    totals = [event["total_rows"] for event in found if event["type"] == "metrics_computed"]
    assert totals == list(range(1_000, row + 1, 1_000))


def test_no_record_of_any_topic_stops_the_whole_service(topics: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    take_any_time(topics)
    bad, log = set(), tmp_path / "service.log"
    for turn in range(2):
        with service(environment, log.with_suffix(f".{turn}"), "monitor,control,worker") as process:
            wait_for_line(log.with_suffix(f".{turn}"), "ready: monitor, control, worker", process)
            send(topics, turn * 1_500, 500)
            for name in SENDS:
                bad |= set(poison(topics, name, turn * 1_500 + 500))
            produce(topics, [(kind, b"bad", value, (), -1) for kind, value in CONTROL_SENDS.values()], "none")
            send(topics, turn * 1_500 + 500, 1_000, turned=turn == 0)
            wait_done(topics, process, f"turn {turn}")
            # The policy asks only if the control plane still reads, and a job ends only if the worker does.
            wait_for(topics, process, "jobs", b'"requested_by":"policy"')
            produce(topics, [("jobs", b"m", asked("m", b"by-hand-%d" % turn), (), -1)], "none")
            wait_for(topics, process, "job-events", b'"job_failed","model":"m","job_id":"by-hand-%d"' % turn)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        said = log.with_suffix(f".{turn}").read_text("utf-8")
        assert "starts again" not in said, "no role ended"
        assert "Traceback" not in said
    assert good_events(topics) == clean(topics, bad)
    letters = [letter.value[:1_000] for letter in read(topics, "jobs.dlq")]
    assert sorted(letters) == sorted(2 * [value[:1_000] for _, value in CONTROL_SENDS.values()])
