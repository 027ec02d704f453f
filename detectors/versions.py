"""The versions of the models of a partition: a slot each, their lanes, and which of them came back or must go.

A version unseen for long starts afresh; of more than eight versions of a model the one unseen for longest is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..schemas.config import MonitorConfig
from .columns import InputRows, Ints
from .episodes import EpisodeBook
from .lanes import Lane

MAX_VERSIONS = 8


@dataclass(slots=True)
class Version:
    """Be one version: `last_seen` is the model's count of predictions at this version's newest one."""

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
    """Be one model: its inputs lane, versions by number, open episodes, and how many predictions it made."""

    slot: int
    book: EpisodeBook
    generation: int
    layout: tuple[str, ...] = ()
    inputs: Lane | None = None
    predictions: int = 0
    versions: dict[int, Version] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Runs:
    """Hold the rows of a batch sorted by (model, version), stable: `rows` are indices, run i is rows[starts[i]:ends[i]]."""

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


class Turns:
    """Find rows at which a version of a model begins anew, or takes the place of another."""

    def __init__(self, config: MonitorConfig, models: dict[int, Watched]) -> None:
        self._idle_rows = config.idle_rows
        self._models = models

    def find(self, inputs: InputRows, runs: Runs) -> list[int]:
        """Return the row indices, ascending."""
        by_model: dict[int, list[int]] = {}
        for run, (model, _) in enumerate(runs.keys):
            by_model.setdefault(model, []).append(run)
        found: list[int] = []
        for model, mine in by_model.items():
            watched = self._models.get(model)
            if len(mine) == 1:
                known = watched.versions.get(runs.keys[mine[0]][1]) if watched is not None else None
                if watched is None or (known is not None and known.last_seen == watched.predictions):
                    continue
            found += self._in_model(inputs, runs, mine)
        return sorted(found)

    def _in_model(self, inputs: InputRows, runs: Runs, mine: list[int]) -> list[int]:
        model = runs.keys[mine[0]][0]
        watched = self._models.get(model)
        base = watched.predictions if watched is not None else 0
        rows = np.flatnonzero(inputs.model == model)
        versions = watched.versions if watched is not None else {}
        found: list[int] = []
        newcomers: list[int] = []
        for run in mine:
            own = runs.rows[runs.starts[run] : runs.ends[run]]
            count = base + np.searchsorted(rows, own) + 1
            version = versions.get(runs.keys[run][1])
            if version is None:
                newcomers.append(int(own[0]))
            before = count[0] - 1 if version is None else version.last_seen
            gaps = np.diff(count, prepend=before) - 1
            found += own[gaps >= self._idle_rows].tolist()
        newcomers.sort()
        return found + newcomers[max(0, MAX_VERSIONS - len(versions)) :]
