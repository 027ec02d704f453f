"""Logs for the monitor's tests: records made from short descriptions, cut into batches as the data plane would."""

import json
import random
from collections.abc import Sequence
from typing import Any

from driftloop.detectors.effects import Effects
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import PackedLabel, PackedPrediction, encode_json, encode_msgpack, pack_features
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.records import Batch, Record, Slice

START_MS = 1_700_000_000_000
KINDS = ("models", "predictions", "labels")


def record(topic: str, offset: int, timestamp_ms: int, key: bytes | None, value: Any) -> Record:
    """Return a record; a dict becomes JSON."""
    data = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record(
        topic=topic, partition=0, offset=offset, timestamp_ms=timestamp_ms, key=key, value=data, headers=(("h", b"%d" % offset),)
    )


def merged(records: Sequence[Record]) -> list[Record]:
    """Return records in the order of the promise: stream time, then topic, then offset."""
    times = dict.fromkeys(KINDS, -1)
    placed = []
    for one in sorted(records, key=lambda one: one.offset):
        times[one.topic] = max(times[one.topic], one.timestamp_ms)
        placed.append((times[one.topic], KINDS.index(one.topic), one.offset, one))
    return [one for _, _, _, one in sorted(placed, key=lambda place: place[:3])]


def batch_of(records: Sequence[Record]) -> Batch:
    """Return records as one batch."""
    slices = {}
    for kind in KINDS:
        mine = [one for one in records if one.topic == kind]
        slices[kind] = Slice(
            values=[one.value for one in mine],
            keys=[one.key for one in mine],
            offsets=[one.offset for one in mine],
            timestamps_ms=[one.timestamp_ms for one in mine],
            headers=lambda at, mine=mine: mine[at].headers,
        )
    return Batch(**slices)


def play(monitor: Monitor, records: Sequence[Record], size: int) -> Effects:
    """Return all effects of records taken in batches of `size`."""
    total = Effects()
    for first in range(0, len(records), size):
        effects = monitor.process(batch_of(records[first : first + size]))
        total.events += effects.events
        total.dead_letters += effects.dead_letters
        total.notices += effects.notices
        for name, count in effects.counters.items():
            total.counters[name] = total.counters.get(name, 0) + count
    return total


def told(effects: Effects) -> tuple[list[bytes], list[bytes], dict[str, int], list[str]]:
    """Return effects as bytes."""
    counters = {name: count for name, count in effects.counters.items() if count}
    return (
        [encode_json(one) for one in effects.events],
        [encode_msgpack(one) for one in effects.dead_letters],
        counters,
        effects.notices,
    )


def traffic(rows: int, seed: int = 0, models: int = 2, drift_at: int | None = None) -> list[Record]:
    """Return good predictions, JSON and packed, each with a label 50 records later; a drift turns the labels."""
    rng = random.Random(seed)
    found = []
    for at in range(rows):
        model, values = f"model-{at % models}", [round(rng.gauss(0, 1), 6) for _ in range(4)]
        output = int(values[0] > 0)
        score = round(rng.random(), 6)
        turned = drift_at is not None and at >= drift_at
        label = output if (rng.random() < 0.9) != turned else 1 - output
        ts = (START_MS + at * 10) / 1000
        if at % 3 == 2:
            packed = PackedPrediction(model, 1, f"id-{at}", ts, output, pack_features(values), "a\nb\nc\nd", [1 - score, score])
            prediction = encode_msgpack(packed)
            said = encode_msgpack(PackedLabel(model, f"id-{at}", label, ts))
        else:
            prediction = json.dumps(
                {
                    "type": "prediction_made",
                    "model": model,
                    "version": 1,
                    "prediction_id": f"id-{at}",
                    "ts": ts,
                    "features": dict(zip("abcd", values, strict=True)),
                    "output": output,
                    "scores": [1 - score, score],
                }
            ).encode()
            said = json.dumps({"model": model, "prediction_id": f"id-{at}", "label": label}).encode()
        found.append(record("predictions", at, START_MS + at * 10, model.encode(), prediction))
        found.append(record("labels", at, START_MS + (at + 50) * 10, model.encode(), said))
    return merged(found)


def small(**changes: Any) -> MonitorConfig:
    """Return a configuration that decides early."""
    said: dict[str, Any] = {
        "warm_up_rows": 50,
        "error_block_rows": 8,
        "input_block_rows": 8,
        "metrics_every_rows": 50,
        "milestones": (50,),
    }
    return MonitorConfig(**said | changes)
