"""Streams for the tests of the watch: rows as intake would hand them over, cut as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from driftloop.detectors.columns import FeatureGroup, InputRows, JoinedRows
from driftloop.detectors.model import Model
from driftloop.detectors.model_table import ModelTable
from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import Event, Task


def table_of(names: list[str], task: Task = "classification") -> ModelTable:
    """Return a table with these models; classes are 0, 1 and 2."""
    table = ModelTable()
    for name in names:
        model = Model(name, task)
        model.classes = [0, 1, 2] if task == "classification" else []
        table.models.append(model)
    return table


@dataclass
class Stream:
    """Hold n predictions and their labels `delay` rows later, as one merged log; columns may be changed before playing."""

    rows: int
    features: np.ndarray
    error: np.ndarray
    delay: int = 0
    task: Task = "classification"
    model: np.ndarray = field(init=False)
    version: np.ndarray = field(init=False)
    confidence: np.ndarray = field(init=False)
    latency: np.ndarray = field(init=False)
    scores: np.ndarray = field(init=False)
    output: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.model = np.zeros(self.rows, np.int64)
        self.version = np.ones(self.rows, np.int64)
        self.confidence = np.full(self.rows, np.nan)
        self.latency = np.full(self.rows, np.nan)
        self.scores = np.full((self.rows, 0), np.nan)
        self.output = np.zeros(self.rows)
        self.label = np.where(self.error == 0, 0.0, 1.0)

    def batch(self, start: int, stop: int) -> tuple[InputRows, JoinedRows]:
        """Return the records [start, stop) of the merged log: record 2 i is prediction i, 2 (i + delay) + 1 its label."""
        prediction = np.arange(-(-start // 2), -(-stop // 2))
        prediction = prediction[prediction < self.rows]
        labelled = np.arange(start // 2, stop // 2) - self.delay
        labelled = labelled[(labelled >= 0) & (labelled < self.rows)]
        names = tuple(f"f{at}" for at in range(self.features.shape[1]))
        groups = []
        if names and len(prediction):
            rows = np.arange(len(prediction))
            groups = [FeatureGroup(names, rows, self.features[prediction], np.ones(len(names), np.bool_))]
        model, version, ts = self.model, self.version, np.arange(self.rows) * 1.0
        inputs = InputRows(
            *(2 * prediction, model[prediction], version[prediction], prediction, ts[prediction]),
            (ts[prediction] * 1000).astype(np.int64),
            *(self.confidence[prediction], self.latency[prediction], groups),
        )
        joined = JoinedRows(
            *(2 * (labelled + self.delay) + 1, model[labelled], version[labelled], labelled, labelled, ts[labelled]),
            *(self.output[labelled], self.label[labelled], self.error[labelled], self.scores[labelled]),
        )
        return inputs, joined

    @property
    def records(self) -> int:
        """Return the length of the merged log."""
        return 2 * (self.rows + self.delay) + 2

    def batches(self, sizes: list[int]) -> Iterator[tuple[InputRows, JoinedRows]]:
        """Yield batches of these sizes in turn, over and over, until the log ends."""
        start, turn = 0, 0
        while start < self.records:
            stop = min(start + sizes[turn % len(sizes)], self.records)
            yield self.batch(start, stop)
            start, turn = stop, turn + 1


def play(stream: Stream, config: MonitorConfig, sizes: list[int], names: list[str] | None = None) -> list[tuple[int, Event]]:
    """Return all events of a fresh watch."""
    watch = Watch(config, "driftloop.", 0, table_of(["m"] if names is None else names, stream.task))
    events = []
    for inputs, joined in stream.batches(sizes):
        events += watch.observe(inputs, joined)
    return events


def numbers(rows: int, features: int, seed: int) -> np.ndarray:
    """Return independent standard normal features."""
    return np.random.default_rng(seed).normal(size=(rows, features))


def errors(shares: list[tuple[int, float]], seed: int) -> np.ndarray:
    """Return 0/1 errors: (rows, share) one stretch after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([(rng.random(rows) < share).astype(np.float64) for rows, share in shares])
