"""What the data plane fetches next: what its merges wait for, and no more of a topic than is held of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from ..schemas.config import DataPlaneConfig
from ..schemas.topics import DATA_PLANE_INPUTS
from .held_partition import HeldPartition
from .plane_inputs import Readers
from .topics import AHEAD_MS

HOLD_BATCHES = 10


def fetch_wanted(readers: Readers, parts: Mapping[int, HeldPartition], config: DataPlaneConfig) -> None:
    """Fetch what the merges want; wait only for one topic, and only while that may bring something."""
    wait_s = config.linger_s
    latest_ms = round(time.time() * 1000) + AHEAD_MS
    # The topic that is not at its end is what holds the others up.
    order = sorted(DATA_PLANE_INPUTS, key=lambda kind: all(held.merge.logs[kind].at_end for held in parts.values()))
    order = [kind for kind in order if any(held.merge.wanted(kind) for held in parts.values())]
    for kind in order:
        got = readers.read(kind, config.batch_records, wait_s)
        wait_s = 0.0
        for partition, fetched in got.items():
            held = parts.get(partition)
            if held is not None:
                held.add(kind, fetched, latest_ms)
                if len(held.merge.logs[kind]) > HOLD_BATCHES * config.batch_records:
                    readers.hold(kind, partition, paused=True)


def let_go_on(readers: Readers, parts: Collection[HeldPartition], config: DataPlaneConfig) -> None:
    """Go on fetching what was held up, where little is left of it."""
    for held in parts:
        for kind in DATA_PLANE_INPUTS:
            if len(held.merge.logs[kind]) < config.batch_records:
                readers.hold(kind, held.partition, paused=False)
