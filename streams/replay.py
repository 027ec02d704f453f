"""Run the monitor over a file, with no broker: NDJSON events as on the topics, or a CSV table of labels and predictions.

Lines are the log: their order is the order of the records. A record's time stamp is its event's `ts`, else the number of its line
in milliseconds, and it never runs backwards, so that merging by time gives the order of the lines however they are cut into batches.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from ..detectors.effects import Effects
from ..detectors.metrics import metrics, positive_class
from ..detectors.monitor import Monitor
from ..schemas import topics
from ..schemas.codecs import encode_msgpack
from ..schemas.config import MonitorConfig
from ..schemas.dead_letters import DeadLetter
from ..schemas.errors import DriftloopError, EventInvalid, InputInvalid
from ..schemas.events import DriftClosed, DriftOpened, DriftUpdated, FeatureValue, LabelArrived, PredictionMade
from ..schemas.records import Batch, Slice
from .event_lines import tell
from .table_file import PEEK_ROWS, CsvFile, CsvRow, column_type, open_csv, parse_feature, parse_scalar, read_lines

DEFAULT_BATCH_SIZE = 5_000
SHOWN_DEAD_LETTERS = 10


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """Say what to replay: `label` and `prediction` name columns of a CSV file; without them the file is NDJSON."""

    path: str
    label: str | None = None
    prediction: str | None = None
    model: str = "model"
    batch_size: int = DEFAULT_BATCH_SIZE
    prefix: str = "driftloop."


class Line(NamedTuple):
    """Be one record of the log to be: topic kind, model, bytes, event time if it has one, and where it stood in the file."""

    kind: str
    model: str
    value: bytes
    ts_ms: int | None
    row: int
    line: int


class Dropped(NamedTuple):
    """Be one dead letter and the line of the file it came from."""

    letter: DeadLetter
    line: int


@dataclass(slots=True)
class Replay:
    """Hold what a replay counted; `metrics` has one object a version, over all its joined rows."""

    rows: int = 0
    records: Counter[str] = field(default_factory=Counter)
    drift: Counter[str] = field(default_factory=Counter)
    dead_lettered: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return one plain object with counts and metrics."""
        return {
            "rows": self.rows,
            "predictions": self.records["predictions"],
            "labels": self.records["labels"],
            "counters": dict(sorted(self.counters.items())),
            "dead_lettered": dict(sorted(self.dead_lettered.items())),
            "drift": {name: self.drift[name] for name in ("drift_opened", "drift_updated", "drift_closed")},
            "episodes": self.episodes,
            "metrics": self.metrics,
        }


class Replayer:
    """Feed lines to one monitor in batches, and map offsets back to rows."""

    def __init__(self, config: ReplayConfig, monitor: MonitorConfig, emit: Callable[[dict[str, Any]], None]) -> None:
        self.replay = Replay()
        self.dropped: list[Dropped] = []
        self._config = config
        self._monitor = Monitor(monitor, config.prefix, 0)
        self._emit = emit
        self._rows = {kind: array("q") for kind in topics.DATA_PLANE_INPUTS}
        self._lines = {kind: array("q") for kind in topics.DATA_PLANE_INPUTS}
        self._change_rows: dict[str, int | None] = {}
        self._clock_ms = 0
        self._rank = 0

    def run(self, lines: Iterable[Line]) -> Replay:
        """Process every line; drift events go to `emit`, each with `row` and `change_row`."""
        rest = iter(lines)
        while batch := list(islice(rest, self._config.batch_size)):
            self._take(self._monitor.process(self._batch(batch)))
        if not self.replay.records.total():
            raise InputInvalid(f"file must have at least one event, got none ({self._config.path})")
        self.replay.metrics = final_metrics(self._monitor)
        return self.replay

    def _batch(self, lines: list[Line]) -> Batch:
        slices = {kind: Slice() for kind in topics.DATA_PLANE_INPUTS}
        for line in lines:
            slot, known = slices[line.kind], self._rows[line.kind]
            slot.values.append(line.value)
            slot.keys.append(line.model.encode())
            slot.offsets.append(len(known))
            slot.timestamps_ms.append(self._tick(line))
            known.append(line.row)
            self._lines[line.kind].append(line.line)
            self.replay.records[line.kind] += 1
            self.replay.rows = max(self.replay.rows, line.row + 1)
        return Batch(predictions=slices["predictions"], labels=slices["labels"], models=slices["models"])

    def _tick(self, line: Line) -> int:
        """Return the record's time stamp: at equal times the monitor takes models, predictions, labels, so another order needs 1 ms."""
        rank = topics.DATA_PLANE_INPUTS.index(line.kind)
        now = max(self._clock_ms, line.line if line.ts_ms is None else line.ts_ms)
        if now == self._clock_ms and rank < self._rank:
            now += 1
        self._clock_ms, self._rank = now, rank
        return now

    def _take(self, effects: Effects) -> None:
        self.replay.counters.update(effects.counters)
        for letter in effects.dead_letters:
            self.replay.dead_lettered[letter.disposition] += 1
            kind = letter.topic.removeprefix(self._config.prefix)
            if len(self.dropped) < SHOWN_DEAD_LETTERS:
                self.dropped.append(Dropped(letter, self._lines[kind][letter.offset]))
        for event in effects.events:
            if isinstance(event, DriftOpened | DriftUpdated | DriftClosed):
                self._tell_drift(event)

    def _tell_drift(self, event: DriftOpened | DriftUpdated | DriftClosed) -> None:
        if isinstance(event, DriftOpened):
            self._change_rows[event.episode_id] = self._row(event.change_point.topic, event.change_point.offset)
            position = event.detected_at
        else:
            position = event.updated_at if isinstance(event, DriftUpdated) else event.closed_at
        told = msgspec.to_builtins(event)
        told["row"] = self._row(position.topic, position.offset)
        told["change_row"] = self._change_rows.get(event.episode_id)
        self.replay.drift[told["type"]] += 1
        if isinstance(event, DriftOpened):
            wanted = (
                "episode_id",
                "model",
                "version",
                "signal",
                "detector",
                "direction",
                "severity",
                "effect",
                "row",
                "change_row",
            )
            self.replay.episodes.append({name: told[name] for name in wanted})
        self._emit(told)

    def _row(self, topic: str, offset: int) -> int | None:
        known = self._rows.get(topic.removeprefix(self._config.prefix))
        return known[offset] if known is not None and 0 <= offset < len(known) else None


def final_metrics(monitor: Monitor) -> list[dict[str, Any]]:
    """Return the metrics of every version over all its joined rows, those of the unfinished window with them, which ends it."""
    watch, found = monitor.watch, []
    for slot, version in enumerate(watch.roster.by_slot):
        if slot in watch.roster.free:
            continue
        _, total = watch.scores.turn(slot)
        task = monitor.table.task(version.model)
        positive = positive_class(total, monitor.table.classes(version.model)) if task == "classification" else None
        told: dict[str, Any] = {"model": monitor.table.name(version.model), "version": version.number, "task": task}
        told |= {"predictions": version.predictions, "rows": total.rows}
        found.append(told | {"total": metrics(task, total, positive) if total.rows else {}})
    return sorted(found, key=lambda one: (one["model"], one["version"]))


def replay_file(
    config: ReplayConfig, monitor: MonitorConfig, emit: Callable[[dict[str, Any]], None]
) -> tuple[Replay, list[Dropped]]:
    """Replay a file; returns the counts and the first dead letters. Raises DriftloopError naming file and line for a broken file."""
    replayer = Replayer(config, monitor, emit)
    if config.label is None and config.prediction is None:
        return replayer.run(event_lines(config)), replayer.dropped
    with open_csv(config.path) as file:
        return replayer.run(table_lines(file, config)), replayer.dropped


def event_lines(config: ReplayConfig) -> Iterator[Line]:
    """Yield the lines of an NDJSON file; one that fits no topic goes to predictions, where the monitor refuses it."""
    for row, (line, value) in enumerate(read_lines(config.path)):
        try:
            told = tell(value)
        except EventInvalid as problem:
            if row == 0:
                hint = "a CSV table needs --label and --prediction"
                raise DriftloopError(f"file must be NDJSON events, {problem}; {hint} ({config.path}, line {line})") from None
            yield Line("predictions", "", value, None, row, line)
            continue
        yield Line(told.kind, told.model, value, told.ts_ms, row, line)


def table_lines(file: CsvFile, config: ReplayConfig) -> Iterator[Line]:
    """Yield a prediction and its label for every row of a table; a missing label leaves the prediction unanswered."""
    if config.label is None or config.prediction is None:
        raise DriftloopError(f"a CSV table needs both --label and --prediction ({config.path})")
    at_label, at_output = file.column(config.label), file.column(config.prediction)
    features = [(name, at) for at, name in enumerate(file.header) if at not in (at_label, at_output)]
    rows = iter(file)
    head = list(islice(rows, PEEK_ROWS))
    kind = column_type([row.cells[at] for row in head for at in (at_label, at_output)])
    for row in chain(head, rows):
        prediction_id = str(row.row)
        try:
            output, label = parse_scalar(row.cells[at_output], kind), parse_scalar(row.cells[at_label], kind)
        except ValueError:
            raise DriftloopError(
                f"label and prediction must be {kind} as in the rows before ({file.path}, line {row.line})"
            ) from None
        if output is None:
            raise DriftloopError(f"prediction must be given, got an empty cell ({file.path}, line {row.line})")
        made = PredictionMade(
            model=config.model, version=1, prediction_id=prediction_id, output=output, features=_features(row, features)
        )
        yield Line("predictions", config.model, encode_msgpack(made), None, row.row, row.line)
        if label is not None:
            arrived = LabelArrived(model=config.model, prediction_id=prediction_id, label=label)
            yield Line("labels", config.model, encode_msgpack(arrived), None, row.row, row.line)


def _features(row: CsvRow, columns: list[tuple[str, int]]) -> dict[str, FeatureValue]:
    return {name: parse_feature(row.cells[at]) for name, at in columns}
