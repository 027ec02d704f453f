"""Run the monitor over a file, with no broker: NDJSON events as on the topics, or a CSV table of labels and predictions.

Lines are the log: their order is the order of the records. A record's time stamp is its event's `ts`, else the number of its line
in milliseconds, and it never runs backwards, so that merging by time gives the order of the lines however they are cut into batches.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from ..detectors.effects import Effects
from ..detectors.metrics import metrics, positive_class
from ..detectors.monitor import Monitor
from ..schemas import topics, values
from ..schemas.codecs import encode_msgpack
from ..schemas.config import MonitorConfig
from ..schemas.dead_letters import DeadLetter
from ..schemas.errors import EventInvalid, InputInvalid
from ..schemas.events import (
    DriftClosed,
    DriftOpened,
    DriftUpdated,
    FeatureValue,
    LabelArrived,
    ModelRegistered,
    PredictionMade,
    Scalar,
    Signature,
    Task,
)
from ..schemas.records import Batch, Slice
from .event_lines import tell
from .line_times import with_record_times
from .table_columns import Wanted, choose
from .table_file import CsvFile, open_csv
from .table_task import PEEK_ROWS, ClassKind, as_float, class_kind, class_of, number_of, task_of
from .text_file import read_lines

DEFAULT_BATCH_SIZE = 5_000
SHOWN_DEAD_LETTERS = 10


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """What to replay: `columns` of a CSV table, label and prediction among them; without them the file is NDJSON. `task` None: assumed."""

    path: str
    columns: Wanted | None = None
    task: Task | None = None
    model: str = "model"
    batch_size: int = DEFAULT_BATCH_SIZE
    prefix: str = "driftloop."


class Line(NamedTuple):
    """One record of the log to be: topic kind, model, bytes, event time if it has one, and where it stood in the file."""

    kind: str
    model: str
    value: bytes
    ts_ms: int | None
    row: int
    line: int


class Dropped(NamedTuple):
    """One dead letter and the line of the file it came from."""

    letter: DeadLetter
    line: int


@dataclass(slots=True)
class Replay:
    """What a replay counted; `metrics` has one object a version, over all its joined rows."""

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
    """One monitor that is fed lines in batches, and the way back from offsets to rows."""

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
        rest = with_record_times(lines)
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
        positive = positive_class(total, *monitor.table.known_classes(version.model)) if task == "classification" else None
        told: dict[str, Any] = {"model": monitor.table.name(version.model), "version": version.number, "task": task}
        told |= {"predictions": version.predictions, "rows": total.rows}
        found.append(told | {"total": metrics(task, total, positive) if total.rows else {}})
    return sorted(found, key=lambda one: (one["model"], one["version"]))


def replay_file(
    config: ReplayConfig, monitor: MonitorConfig, emit: Callable[[dict[str, Any]], None], note: Callable[[str], None]
) -> tuple[Replay, list[Dropped]]:
    """Replay a file; returns the counts and the first dead letters. What was assumed of a table goes to `note`.

    Raises NotFound, InputInvalid naming file and line for a broken file.
    """
    replayer = Replayer(config, monitor, emit)
    if config.columns is None:
        return replayer.run(event_lines(config)), replayer.dropped
    with open_csv(config.path) as file:
        return replayer.run(table_lines(file, config, note)), replayer.dropped


def event_lines(config: ReplayConfig) -> Iterator[Line]:
    """Yield the lines of an NDJSON file; one that fits no topic goes to predictions, where the monitor refuses it."""
    for row, (line, value) in enumerate(read_lines(config.path)):
        try:
            told = tell(value)
        except EventInvalid as problem:
            if row == 0:
                hint = "a CSV table needs --label and --prediction"
                raise InputInvalid(f"file must be NDJSON events, {problem}; {hint} ({config.path}, line {line})") from None
            yield Line("predictions", "", value, None, row, line)
            continue
        yield Line(told.kind, told.model, value, told.ts_ms, row, line)


def table_lines(file: CsvFile, config: ReplayConfig, note: Callable[[str], None]) -> Iterator[Line]:
    """Yield a prediction and its label for every row of a table; a missing label leaves the prediction unanswered.

    What is assumed of columns and task goes to `note`. A regression is registered: from whole numbers the monitor would learn classes.
    """
    assert config.columns is not None
    rows = iter(file)
    head = list(islice(rows, PEEK_ROWS))
    chosen = choose(file, head, config.columns)
    assert chosen.output is not None
    scalars = [row.cells[at] for row in head for at in (chosen.label, chosen.output)]
    assumed = task_of(config.task, scalars)
    for sentence in (assumed.sentence(), chosen.sentence()):
        if sentence is not None and head:
            note(sentence)
    features = [(file.header[at], at) for at in chosen.features]
    if assumed.task == "regression" and head:
        # A registered model's features are numbers.
        texts = {name for name, at in features if any(isinstance(values.cell(row.cells[at]), str) for row in head)}
        features = [(name, at) for name, at in features if name not in texts]
        if texts:
            note(f"no features, since they hold text, which is not watched: {', '.join(sorted(texts))}")
        yield Line("models", config.model, encode_msgpack(_regression(config.model, features)), None, 0, 0)
    kind = class_kind(scalars)
    parse = number_of if assumed.task == "regression" else partial(_class, kind)
    for row in chain(head, rows):
        output = parse(row.cells[chosen.output], file.where(row.line, chosen.output))
        label = parse(row.cells[chosen.label], file.where(row.line, chosen.label))
        if output is None:
            raise InputInvalid(f"prediction must be given, got an empty cell ({file.where(row.line, chosen.output)})")
        ident, told = str(row.row), {name: parse_feature(row.cells[at]) for name, at in features}
        made = PredictionMade(model=config.model, version=1, prediction_id=ident, output=output, features=told)
        yield Line("predictions", config.model, encode_msgpack(made), None, row.row, row.line)
        if label is not None:
            arrived = LabelArrived(model=config.model, prediction_id=ident, label=label)
            yield Line("labels", config.model, encode_msgpack(arrived), None, row.row, row.line)


def parse_feature(cell: str) -> FeatureValue:
    """Return a number, a category, or None where missing; the monitor refuses a number beyond float32."""
    try:
        # Nearly every cell is a number; what is not, or not in every spelling of Python's, is asked of the table of meanings.
        number = float(cell)
    except ValueError:
        number = math.nan
    if number == number and "_" not in cell:
        return number
    value = values.cell(cell)
    return value if value is None or isinstance(value, str) else as_float(value)


def _class(kind: ClassKind, cell: str, where: str) -> Scalar | None:
    return class_of(cell, kind, where)


def _regression(model: str, features: list[tuple[str, int]]) -> ModelRegistered:
    signature = Signature(task="regression", features=tuple(name for name, _ in features))
    return ModelRegistered(model=model, version=1, digest="", uri="", size_bytes=0, signature=signature)
