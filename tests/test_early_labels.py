"""Early labels: bounded by number and by the bytes of their records, also after a restore."""

from __future__ import annotations

import json

import numpy as np
import pytest

from driftloop.detectors.early_labels import MAX_LABEL_BYTES
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import MAX_PART_BYTES
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, play, small

MEGABYTE = 1024 * 1024


def fat(at: int, value_bytes: int = 0, header_bytes: int = 0) -> Record:
    value = {"model": "m", "prediction_id": f"p{at}", "label": 1, "more": "x" * value_bytes}
    headers = (("h", b"h" * header_bytes),)
    return Record(
        topic="labels",
        partition=0,
        offset=at,
        timestamp_ms=START_MS + at,
        key=b"m",
        value=json.dumps(value).encode(),
        headers=headers,
    )


def restored(monitor: Monitor, config: MonitorConfig) -> Monitor:
    return Monitor.from_snapshot(config, "driftloop.", 0, monitor.snapshot())


@pytest.mark.parametrize("size", [1, 13, 100])
def test_fat_early_labels_are_bounded_by_bytes_and_the_oldest_give_way(size: int) -> None:
    config = small(max_early_bytes=MEGABYTE)
    monitor = Monitor(config, "driftloop.", 0)
    effects = play(monitor, [fat(at, 30_000, 20_000) for at in range(100)], size)
    assert monitor.early.size_bytes <= MEGABYTE
    assert len(monitor.early) == 20
    assert [(letter.offset, letter.disposition) for letter in effects.dead_letters] == [(at, "unjoinable") for at in range(80)]
    assert [line.split(" ")[0] for line in effects.notices] == ["monitor.max_early_bytes"]
    assert all(len(part or b"") <= MAX_PART_BYTES for part in monitor.take_dirty().values())
    other = restored(monitor, config)
    assert other.early.size_bytes == monitor.early.size_bytes
    assert [letter.offset for letter in play(other, [fat(100, 30_000, 20_000)], 1).dead_letters] == [80]


def test_a_label_too_large_to_be_held_is_refused_at_once() -> None:
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    effects = play(monitor, [fat(0, 0, MAX_LABEL_BYTES), fat(1, 100, 100)], 1)
    assert [(letter.offset, letter.disposition) for letter in effects.dead_letters] == [(0, "too_large")]
    assert len(monitor.early) == 1


def test_a_smaller_bound_lets_the_oldest_go_at_the_next_label() -> None:
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    play(monitor, [fat(at) for at in range(300)], 100)
    other = restored(monitor, MonitorConfig(max_early_labels=100))
    effects = play(other, [fat(300)], 1)
    assert [letter.offset for letter in effects.dead_letters] == list(range(201))
    assert len(other.early) == 100


def test_only_ids_that_are_held_are_looked_at_twice() -> None:
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    play(monitor, [fat(at) for at in range(50)], 50)
    held = np.frombuffer(b"".join(monitor.early._held), np.uint64).reshape(-1, 2)
    others = held + np.uint64(1)
    assert monitor.early.among(held).all()
    assert not monitor.early.among(others).any()
    for ident in list(monitor.early._held):
        monitor.early.remove(ident)
    assert not monitor.early.among(held).any()
    assert monitor.early.size_bytes == 0
