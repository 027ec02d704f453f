"""The versions of the models of a partition: a slot each, their lanes, and which of them came back or must go.

A version unseen for long starts afresh. Of more versions than a model has room for one gives way, or the new one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..schemas.config import MonitorConfig
from .columns import InputRows, Ints
from .episodes import EpisodeBook
from .lanes import Lane
from .model_table import ModelTable

MINUTE_MS = 60_000


@dataclass(slots=True)
class Version:
    """One version: `last_seen` is the model's count of predictions at this version's newest one."""

    slot: int
    model: int
    number: int
    output: Lane
    error: Lane
    predictions: int = 0
    labelled: int = 0
    last_seen: int = 0
    dirty: bool = True


@dataclass(slots=True)
class Watched:
    """One model: its inputs lane, versions by number, open episodes, and how many predictions it made.

    `next_turn_ms`: when the turns of new versions are all there again. `seen_ms`: stream time of its newest prediction.
    """

    slot: int
    book: EpisodeBook
    generation: int
    layout: tuple[str, ...] = ()
    inputs: Lane | None = None
    predictions: int = 0
    versions: dict[int, Version] = field(default_factory=dict)
    next_turn_ms: int = 0
    seen_ms: int = -1
    is_labelled: bool = False


@dataclass(frozen=True, slots=True)
class Runs:
    """The rows of a batch sorted by (model, version), stable: `rows` are indices, run i is rows[starts[i]:ends[i]]."""

    rows: Ints
    starts: list[int]
    ends: list[int]
    keys: list[tuple[int, int]]


def version_runs(model: Ints, version: Ints) -> Runs:
    """Return the rows of each (model, version)."""
    key = (model << 32) | version
    if not len(key):
        return Runs(np.zeros(0, np.int64), [], [], [])
    if (key == key[0]).all():
        return Runs(np.arange(len(key)), [0], [len(key)], [(int(model[0]), int(version[0]))])
    rows = np.argsort(key, kind="stable")
    key = key[rows]
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(key[1:] != key[:-1]) + 1))
    keys = [(one >> 32, one & 0xFFFFFFFF) for one in key[starts].tolist()]
    return Runs(rows, starts.tolist(), [*starts[1:].tolist(), len(key)], keys)


@dataclass(frozen=True, slots=True)
class Turn:
    """A version that begins anew at the record `order`: it was away, or it is new and `gives_way` is forgotten for it."""

    order: int
    model: int
    version: int
    gives_way: int | None = None


@dataclass(slots=True)
class Turns:
    """The turns of a batch in order, and its rows that are refused: index, setting that bounds them, and why."""

    turns: list[Turn] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)


class VersionGate:
    """The rule of which versions are watched: `max_versions` of a model at once, and so many new ones a minute.

    A version gives way that was away for long, else one that was barely seen; of those the one unseen for longest. One named on the models
    topic always has room.
    """

    def __init__(self, config: MonitorConfig, table: ModelTable, models: dict[int, Watched]) -> None:
        self._config = config
        self._table = table
        self._models = models

    def find(self, inputs: InputRows, runs: Runs) -> Turns:
        """Return what a batch asks for."""
        by_model: dict[int, list[int]] = {}
        for run, (model, _) in enumerate(runs.keys):
            by_model.setdefault(model, []).append(run)
        found = Turns()
        for model, mine in by_model.items():
            watched = self._models[model]
            versions = watched.versions
            if len(mine) == 1:
                known = versions.get(runs.keys[mine[0]][1])
                # Alone it comes after nothing that it could have been away for: it was the last one, or there is none yet.
                if known.last_seen == watched.predictions if known is not None else not versions:
                    continue
            new = sum(runs.keys[run][1] not in versions for run in mine)
            if len(versions) + new > self._config.max_versions and new:
                self._walk(inputs, watched, found)
            else:
                self._returns(inputs, runs, (watched, mine), found)
        found.turns.sort(key=lambda turn: turn.order)
        found.refused.sort()
        return found

    def _returns(self, inputs: InputRows, runs: Runs, of: tuple[Watched, list[int]], found: Turns) -> None:
        """Find the rows at which versions come back; there is room for all."""
        watched, mine = of
        rows = np.flatnonzero(inputs.model == watched.slot)
        for run in mine:
            number = runs.keys[run][1]
            own = runs.rows[runs.starts[run] : runs.ends[run]]
            count = watched.predictions + np.searchsorted(rows, own) + 1
            version = watched.versions.get(number)
            before = count[0] - 1 if version is None else version.last_seen
            gaps = np.diff(count, prepend=before) - 1
            away = own[gaps >= self._config.idle_rows]
            found.turns += [Turn(order, watched.slot, number) for order in inputs.order[away].tolist()]

    def _walk(self, inputs: InputRows, watched: Watched, found: Turns) -> None:
        """Find turns and refusals of a model that has more versions than there is room for, record by record."""
        idle, slot = self._config.idle_rows, watched.slot
        seen = {number: [one.last_seen, one.predictions] for number, one in watched.versions.items()}
        count = watched.predictions
        rows = np.flatnonzero(inputs.model == slot)
        columns = rows.tolist(), inputs.order[rows].tolist(), inputs.version[rows].tolist(), inputs.time_ms[rows].tolist()
        for row, order, number, time_ms in zip(*columns, strict=True):
            mine = seen.get(number)
            if mine is None:
                problem = None
                if len(seen) >= self._config.max_versions:
                    problem = self._replace(watched, (count, time_ms), (order, number), (seen, found))
                if problem is not None:
                    found.refused.append((row, *problem))
                    continue
                mine = seen[number] = [count, 0]
            elif count - mine[0] >= idle:
                found.turns.append(Turn(order, slot, number))
            count += 1
            mine[0], mine[1] = count, mine[1] + 1

    def _replace(
        self, watched: Watched, now: tuple[int, int], new: tuple[int, int], into: tuple[dict[int, list[int]], Turns]
    ) -> tuple[str, str] | None:
        """Make room for a version, or return the setting in its way and what it says."""
        config, model = self._config, self._table.models[watched.slot]
        name, named = model.name, model.named
        (count, time_ms), (order, number), (seen, found) = now, new, into
        is_named = number in named
        give = [one for one in seen if one not in named]
        if is_named:
            give = give or list(seen)
        else:
            give = [one for one in give if count - seen[one][0] >= config.idle_rows or seen[one][1] < config.warm_up_rows]
            if not give:
                return "max_versions", f"version must be one of the {len(seen)} watched, got {number} beside them (model {name})"
            if not self._has_turn(watched, time_ms):
                most = config.max_new_versions_per_minute
                return "max_new_versions_per_minute", f"new versions must be at most {most} a minute, got {number} (model {name})"

        def rank(one: int) -> tuple[bool, bool, int, int]:
            last_seen, predictions = seen[one]
            return count - last_seen < config.idle_rows, predictions >= config.warm_up_rows, last_seen, one

        while len(seen) >= config.max_versions and give:
            gone = min(give, key=rank)
            give.remove(gone)
            del seen[gone]
            found.turns.append(Turn(order, watched.slot, number, gone))
        return None

    def _has_turn(self, watched: Watched, time_ms: int) -> bool:
        """Take one of the turns of a minute, which come back one by one."""
        pause_ms = MINUTE_MS // self._config.max_new_versions_per_minute
        due_ms = max(watched.next_turn_ms, time_ms)
        if due_ms > time_ms + MINUTE_MS - pause_ms:
            return False
        watched.next_turn_ms = due_ms + pause_ms
        return True
