"""The data plane in memory: outputs beside their inputs, offsets with the outputs, the same events however it is stepped."""

import json
from collections.abc import Iterator, Sequence

from driftloop.schemas.config import TopicsConfig
from driftloop.schemas.topics import DATA_PLANE_INPUTS
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.transport import Outgoing

START_MS = 1_760_000_000_000
SETTINGS = Settings(topics=TopicsConfig(prefix="t.", partitions=2))
MODELS = ("a", "b", "c")


def traffic(rows: int) -> Iterator[Outgoing]:
    for row in range(rows):
        stamp, model = START_MS + row * 10, MODELS[row % len(MODELS)]
        made = {"model": model, "version": 1, "prediction_id": str(row), "output": 1, "features": {"x": row % 7}}
        right = (row % 10 != 0) == (row < rows // 2)
        label = {"model": model, "prediction_id": str(row), "label": 1 if right else 0}
        yield Outgoing("t.predictions", model.encode(), json.dumps(made).encode(), (), stamp)
        yield Outgoing("t.labels", model.encode(), json.dumps(label).encode(), (), stamp + 3)


def told(transport: MemoryTransport, kind: str) -> dict[int, list[tuple[bytes | None, bytes | None, bytes | None]]]:
    found: dict[int, list[tuple[bytes | None, bytes | None, bytes | None]]] = {part: [] for part in range(transport.partitions)}
    for record in transport.reader([SETTINGS.topic(kind)]).poll(100_000, 0.0):
        found[record.partition].append((record.key, record.value, dict(record.headers).get("ce_id")))
    return found


def stepped(sent: Sequence[Outgoing], cut: int) -> MemoryTransport:
    transport = MemoryTransport(2)
    plane = MemoryPlane(SETTINGS, transport)
    for first in range(0, len(sent), cut):
        transport.append(sent[first : first + cut])
        plane.step()
    assert plane.step() == 0
    assert plane.counters()["joined"] == len(sent) // 2
    plane.close()
    return transport


def test_events_do_not_depend_on_the_steps() -> None:
    sent = list(traffic(6_000))
    whole, parts = stepped(sent, len(sent)), stepped(sent, 700)
    for kind in ("drift", "metrics"):
        assert told(whole, kind) == told(parts, kind)
    metrics = [json.loads(value) for found in told(whole, "metrics").values() for _, value, _ in found if value]
    assert {one["model"]: one["total_rows"] for one in metrics} == dict.fromkeys(MODELS, 2_000)
    opened = [json.loads(value) for found in told(whole, "drift").values() for _, value, _ in found if value]
    assert {one["model"] for one in opened if one["type"] == "drift_opened"} == set(MODELS)


def test_offsets_follow_what_was_processed() -> None:
    sent = list(traffic(200))
    transport = MemoryTransport(2)
    plane = MemoryPlane(SETTINGS, transport)
    transport.append(sent[:200])
    assert plane.step() == 200
    at = {kind: transport.committed(SETTINGS.monitor_group, SETTINGS.topic(kind)) for kind in DATA_PLANE_INPUTS}
    transport.append(sent[200:])
    for kind in ("predictions", "labels"):
        assert sum(at[kind].values()) == 100
        assert sum(transport.end_offsets(SETTINGS.topic(kind)).values()) == 200
    assert at["models"] == {}
    plane.step()
    done = transport.committed(SETTINGS.monitor_group, "t.predictions")
    assert {part: end for part, end in transport.end_offsets("t.predictions").items() if end} == done


def test_outputs_go_to_the_partition_of_their_input() -> None:
    # A producer with a partitioner of its own: the key alone would say otherwise for one of the two.
    transport = MemoryTransport(2)
    plane = MemoryPlane(SETTINGS, transport)
    for partition in range(2):
        name = f"only{partition}"
        rows = [one._replace(key=name.encode()) for one in traffic(1_000)]
        values = [json.loads(one.value) | {"model": name} for one in rows if one.value]
        transport.append(
            [one._replace(value=json.dumps(value).encode(), partition=partition) for one, value in zip(rows, values, strict=True)]
        )
        transport.append([Outgoing("t.predictions", None, b"{", (("trace", b"1"),), START_MS + 20_000, partition)])
    plane.step()
    letters = transport.reader(["t.predictions.dlq"]).poll(10, 0.0)
    assert [(letter.partition, letter.key, letter.value) for letter in letters] == [(0, None, b"{"), (1, None, b"{")]
    assert all(dict(letter.headers)["trace"] == b"1" for letter in letters)
    assert {part: {key for key, _, _ in found} for part, found in told(transport, "metrics").items()} == {
        0: {b"only0"},
        1: {b"only1"},
    }
