"""Evictions: which models give way where there is no room for new ones.

Unregistered models alone: those barely seen and never labelled, then those unseen for long; of each the one unseen for longest first.
Room is made between records, at the first one of a second of stream time, so that verdicts do not depend on batches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..schemas.config import MonitorConfig
from ..schemas.records import Batch
from .columns import Ints
from .decoding import JSON_START
from .model_table import ModelTable
from .pending import Pending
from .room import NOTHING, Size, size_of
from .roster import Roster

SWEEP_MS = 1_000


class Evictions:
    """The one place where models leave a partition; `forget` is told the name of each."""

    def __init__(self, config: MonitorConfig, of: tuple[ModelTable, Roster, Pending], forget: Callable[[str], None]) -> None:
        self._table, self._roster, self._buffer = of
        self._forget = forget
        self._warm_up_rows = config.warm_up_rows
        self._idle_ms = round(config.model_idle_s * 1000)

    def due(self, batch: Batch, times_ms: Ints, before_ms: int) -> list[int]:
        """Return the places of a batch, in merged order, at which `sweep` may be due; `before_ms` is the stream time before it."""
        if not self._may_lack(batch):
            return []
        found: list[int] = np.flatnonzero(np.diff(times_ms // SWEEP_MS, prepend=before_ms // SWEEP_MS)).tolist()
        return found

    def _may_lack(self, batch: Batch) -> bool:
        """Return whether a model may be refused for lack of room in this batch, or was before it."""
        room, keys = self._table.room, batch.predictions.keys
        if room.wanted != NOTHING:
            return True
        if not keys or (keys.count(keys[0]) == len(keys) and self._table.knows(keys[0])):
            return False
        new = dict.fromkeys(self._table.unknown(set(keys)), 0)
        if not new:
            return False
        # A model is made of one record of its key: the largest bounds it.
        for key, value in zip(keys, batch.predictions.values, strict=True):
            if key in new and value is not None:
                new[key] = max(new[key], _most_values(value))
        most = [*new.values(), *(_most_values(value or b"") for value in batch.models.values)]
        sizes = [size_of(values, values) for values in most]
        return room.lacks(Size(*map(sum, zip(*sizes, strict=True)))) is not None

    def sweep(self, now_ms: int) -> int:
        """Make room where some was wanted; return how many models gave way."""
        room = self._table.room
        if room.wanted == NOTHING:
            return 0
        gone = 0
        if not room.has_goal():
            for barely, idle, slot in self._ranked(now_ms):
                if room.has_goal() or not (barely or idle):
                    break
                self._evict(slot)
                gone += 1
        room.wanted = NOTHING
        return gone

    def make_room(self, size: Size, now_ms: int, spared: int) -> bool:
        """Let any unregistered models but `spared` go until there is room for a registered one; return whether there is."""
        room = self._table.room
        if room.lacks(size) is None:
            return True
        for _, _, slot in self._ranked(now_ms):
            if slot != spared:
                self._evict(slot)
                if room.lacks(size) is None:
                    return True
        return False

    def _ranked(self, now_ms: int) -> list[tuple[bool, bool, int]]:
        """Return (barely seen, idle, slot) of all unregistered models, the first to go first."""
        found = []
        for slot, model in enumerate(self._table.models):
            if model.registered or model.is_free:
                continue
            watched = self._roster.models.get(slot)
            seen_ms = watched.seen_ms if watched is not None else -1
            barely = watched is None or (watched.predictions < self._warm_up_rows and not watched.is_labelled)
            idle = now_ms - seen_ms >= self._idle_ms
            found.append((not barely, not idle, seen_ms, model.born, slot))
        return [(not steady, not busy, slot) for steady, busy, _, _, slot in sorted(found)]

    def _evict(self, slot: int) -> None:
        self._forget(self._table.name(slot))
        self._table.remove(slot, self._buffer.head)
        self._roster.remove(slot)


def _most_values(value: bytes) -> int:
    """Return how many features or scores a record has at most: one more than commas in JSON, elsewhere each takes a byte at least."""
    return value.count(b",") + 1 if value and value[0] == JSON_START else len(value)
