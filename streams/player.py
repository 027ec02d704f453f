"""Play a table as live traffic: serve with the champion, log predictions, let labels follow, hold while a repair runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..compression.runtime import Runner
from ..schemas.errors import DriftloopError
from ..schemas.events import Scalar
from ..settings import Settings
from .demo_story import Story
from .labelled_table import Table
from .transport import Transport

STALL_S = 60.0
PATIENCE_S = 5.0
PAUSE_S = 0.005
HOLD_PAUSE_S = 0.05  # a repair needs the processor more than the player does


@dataclass(frozen=True, slots=True)
class PlayConfig:
    """How to play: rows served at once, how far traffic may be ahead of the monitor, rows a second (None: as it can)."""

    model: str = "demo"
    label_delay: int = 100
    chunk_rows: int = 50
    lead_rows: int = 200
    rate: float | None = None


class Served(NamedTuple):
    """A version that serves."""

    version: int
    runner: Runner


class Serving(Protocol):
    """The champion that serving processes have by now."""

    def current(self) -> Served:
        """Return the newest promoted version that has been loaded."""


class Service(Protocol):
    """The monitor, control plane and worker that the traffic meets."""

    def pump(self) -> bool:
        """Let an in-process service work, return True if it did; raise DriftloopError where one of its own processes has died."""


class EventLog(Protocol):
    """The log of a serving process."""

    def prediction(self, version: int, row: int, scores: NDArray[np.float32]) -> None:
        """Log one prediction."""

    def label(self, row: int, label: Scalar) -> None:
        """Log one label."""

    def flush(self) -> None:
        """Wait until everything is with the broker."""


@dataclass(slots=True)
class Score:
    """How well each row was answered, from `first_row` on, and the row at which each version began to serve.

    `adapted` and `frozen` hold 1 or 0 for right or wrong, for a regression the absolute error.
    """

    first_row: int
    adapted: NDArray[np.float64]
    frozen: NDArray[np.float64]
    swaps: list[tuple[int, int]]
    held_s: float = 0.0
    played_s: float = 0.0


@dataclass(slots=True)
class Stage:
    """All that a player plays with."""

    table: Table
    settings: Settings
    transport: Transport
    service: Service
    serving: Serving
    log: EventLog
    story: Story


class Player:
    """The traffic: rows of a table from `first_row` to its end."""

    def __init__(self, config: PlayConfig, stage: Stage, first_row: int, progress: Callable[[int], None]) -> None:
        self._config = config
        self._stage = stage
        self._first_row = first_row
        self._progress = progress
        self._next_label = first_row
        rows = len(stage.table) - first_row
        self._frozen = stage.serving.current().runner
        self.score = Score(first_row, np.zeros(rows), np.zeros(rows), [])

    def play(self) -> Score:
        """Play everything, then wait until the service has taken it all in and every job has ended."""
        begun = time.monotonic()
        config, last = self._config, len(self._stage.table)
        for start in range(self._first_row, last, config.chunk_rows):
            stop = min(start + config.chunk_rows, last)
            self._serve(start, stop)
            self._label_up_to(stop - config.label_delay)
            self._progress(stop)
            if config.rate is not None:
                self._keep_time(begun, stop)
            else:
                self._settle(config.lead_rows, stop)
        self._label_up_to(last)
        self._stage.log.flush()
        self._settle(0, last)
        self.score.played_s = time.monotonic() - begun
        return self.score

    def _serve(self, start: int, stop: int) -> None:
        stage, score = self._stage, self.score
        served = stage.serving.current()
        if not score.swaps or score.swaps[-1][1] != served.version:
            score.swaps.append((start, served.version))
        table, features = stage.table, stage.table.features[start:stop]
        scores = served.runner.scores(features)
        here = slice(start - self._first_row, stop - self._first_row)
        score.adapted[here] = answered(scores, table, slice(start, stop))
        score.frozen[here] = answered(self._frozen.scores(features), table, slice(start, stop))
        for row in range(start, stop):
            stage.log.prediction(served.version, row, scores[row - start])

    def _label_up_to(self, stop: int) -> None:
        table = self._stage.table
        for row in range(self._next_label, stop):
            self._stage.log.label(row, table.label(row))
        self._next_label = max(self._next_label, stop)

    def _keep_time(self, begun: float, stop: int) -> None:
        assert self._config.rate is not None
        due = begun + (stop - self._first_row) / self._config.rate
        while True:
            worked = self._stage.service.pump()
            self._stage.story.read()
            left = due - time.monotonic()
            if left <= 0:
                return
            if not worked:
                time.sleep(min(left, 0.05))

    def _settle(self, lead: int, stop: int) -> None:
        """Wait until the monitor is at most `lead` rows behind and no repair is under way or due."""
        stage, waited = self._stage, _Waiting()
        while True:
            worked = stage.service.pump()
            stage.story.read()
            pause_s = PAUSE_S
            if stage.story.repairing or self._swap_due():
                waited.hold(stage.settings.worker.job_timeout_s * stage.settings.worker.max_attempts + STALL_S)
                pause_s = HOLD_PAUSE_S
            elif (behind := self._behind(stop)) > lead:
                waited.progress(behind)
            elif (expected := stage.story.expected()) is None:
                known = len(stage.story.told)
                stage.story.read()
                if len(stage.story.told) == known:
                    break
            elif waited.expecting(expected):
                stage.story.give_up(expected)
            if not worked:
                time.sleep(pause_s)
        self.score.held_s += waited.held_s()

    def _swap_due(self) -> bool:
        champion = self._stage.story.champion
        return champion is not None and champion != self._stage.serving.current().version

    def _behind(self, stop: int) -> int:
        """Return by how many rows the monitor's committed offsets are behind what was sent."""
        settings, behind = self._stage.settings, 0
        for kind, sent in (("predictions", stop - self._first_row), ("labels", self._next_label - self._first_row)):
            committed = self._stage.transport.committed(settings.monitor_group, settings.topic(kind))
            behind = max(behind, sent - sum(committed.values()))
        return behind


def answered(scores: NDArray[np.float32], table: Table, rows: slice) -> NDArray[np.float64]:
    """Return how well rows were answered: 1 or 0 for right or wrong, for a regression the absolute error."""
    labels = table.labels[rows]
    if table.task == "classification":
        return np.asarray(scores.argmax(axis=1) == labels, np.float64)
    return np.abs(scores[:, 0].astype(np.float64) - labels)


class _Waiting:
    """The clock of one wait: raises DriftloopError where nothing moves."""

    def __init__(self) -> None:
        self._behind: int | None = None
        self._since = time.monotonic()
        self._held: float | None = None
        self._expected: tuple[str, float] | None = None

    def hold(self, limit_s: float) -> None:
        now = time.monotonic()
        if self._held is None:
            self._held = now
        self._since = now
        if now - self._held > limit_s:
            raise DriftloopError(f"a repair must end and its model be served within {limit_s:.0f} s (demo)")

    def held_s(self) -> float:
        return 0.0 if self._held is None else time.monotonic() - self._held

    def progress(self, behind: int) -> None:
        now = time.monotonic()
        if self._behind is None or behind < self._behind:
            self._behind, self._since = behind, now
        if now - self._since > STALL_S:
            raise DriftloopError(f"the service must take in events, got none for {STALL_S:.0f} s, {behind} rows behind (demo)")

    def expecting(self, expected: str) -> bool:
        """Return True once the same job has been expected for too long."""
        now = time.monotonic()
        if self._expected is None or self._expected[0] != expected:
            self._expected = (expected, now)
        return now - self._expected[1] > PATIENCE_S
