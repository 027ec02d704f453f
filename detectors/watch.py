"""The watch: signals of admitted and joined rows through baselines, blocks and detectors to episodes and metrics.

One call takes one batch; what it says does not depend on where the log was cut. Sums over rows are exact (blocks.py), full blocks
of all lanes are handled in the order of the rows that closed them, and a batch is cut where a version begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..schemas.config import MonitorConfig
from ..schemas.events import Event, Implicated, MetricsComputed, Position
from ..schemas.topics import topic_name
from .agenda import DUE, Agenda, lane_of
from .blocks import Flow
from .columns import InputRows, JoinedRows
from .episodes import Tip
from .lanes import Alarm, Fired, Lane, Place
from .metrics import metrics, positive_class
from .model_table import ModelTable
from .roster import Roster
from .scorekeeper import Scorekeeper, take_joined
from .step import Step, take_inputs
from .versions import Turn, Version, Watched
from .watch_state import WatchState

MAX_IMPLICATED = 5
MIN_IMPLICATED_BLOCKS = 2
INPUTS, OUTPUT, ERROR, METRICS = range(4)
Told = tuple[int, int, str, Event]


class Watch:
    """Watch all models of one partition."""

    def __init__(self, config: MonitorConfig, prefix: str, partition: int, table: ModelTable) -> None:
        self.config = config
        self.partition = partition
        self.table = table
        self.topics = {kind: topic_name(prefix, kind) for kind in ("predictions", "labels")}
        self.scores = Scorekeeper(config.metrics_every_rows)
        self.roster = Roster(config, self.scores, table)
        self.last_label = -1
        self._state = WatchState(self)
        self._told: list[Told] = []
        self.refused: list[tuple[int, str, str]] = []

    def observe(self, inputs: InputRows, joined: JoinedRows) -> list[tuple[int, Event]]:
        """Take a batch; return its events with the order of the record that caused each, in order."""
        self.roster.meet(inputs)
        runs, found = self.roster.turns(inputs)
        self.refused += [(int(inputs.order[row]), setting, problem) for row, setting, problem in found.refused]
        if found.refused:
            keep = np.ones(len(inputs.order), np.bool_)
            keep[[row for row, _, _ in found.refused]] = False
            inputs = inputs.take(keep)
        if not found.turns and not found.refused:
            self._step(Step(self, inputs, joined, runs))
        else:
            self._in_stretches(inputs, joined, found.turns)
        told, self._told = self._told, []
        told.sort(key=lambda one: one[:3])
        return [(one[0], one[3]) for one in told]

    def _in_stretches(self, inputs: InputRows, joined: JoinedRows, turns: list[Turn]) -> None:
        """Take a batch piece by piece, cut where a version begins anew."""
        orders = np.array([turn.order for turn in turns], np.int64)
        here, there = np.searchsorted(inputs.order, orders).tolist(), np.searchsorted(joined.order, orders).tolist()
        row, pair = 0, 0
        for turn, stop, joined_stop in zip((*turns, None), (*here, len(inputs.order)), (*there, len(joined.order)), strict=True):
            if row < stop or pair < joined_stop:
                self._step(Step(self, take_inputs(inputs, row, stop), take_joined(joined, slice(pair, joined_stop)), None))
            row, pair = stop, joined_stop
            if turn is not None:
                self.roster.turn(turn)

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return the parts of the state that changed since the last call; None deletes a part."""
        return self._state.take_dirty()

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over the newest of every part; raises SnapshotInvalid."""
        self._state.restore(parts)

    def _step(self, step: Step) -> None:
        agenda = step.agenda = Agenda(step.flows(), self._is_open)
        for order, slot, signal in step.dues():
            agenda.add_due(order, slot, signal)
        for order, rank, what in agenda.visits():
            if rank == DUE:
                self._due(step, order, what)
            else:
                self._block(step, (order, rank), what)
        self._score(step)
        step.finish()

    def _is_open(self, slot: int, signal: str) -> bool:
        return signal in self.roster.models[slot].book.open

    def _block(self, step: Step, when: tuple[int, int], source: tuple[Flow, int, Fired]) -> None:
        flow, run, fired = source
        lane = lane_of(flow, run)
        block = flow.take(run)
        alarms, levels = lane.close(block, fired)
        flow.handled(run, block)
        book = self.roster.models[lane.model].book
        if book.open and not levels:
            level = lane.level(block)
            levels = [] if level is None else [level]
        if alarms or (levels and book.open):
            self._tell(step, (self.roster.models[lane.model], lane), (when, Place(*block.last), alarms, levels))

    def _tell(self, step: Step, who: tuple[Watched, Lane], what: tuple[Any, ...]) -> None:
        watched, lane = who
        (order, rank), last, alarms, levels = what
        version = lane.version if rank != INPUTS else step.version_at(order)
        position = self.position("labels" if rank == ERROR else "predictions", last)
        book = watched.book
        for level in levels:
            tip = Tip(self.table.name(watched.slot), self.topics["predictions"], version, order, position, 0, None, ())
            now = step.labelled(book.open.get(level.signal), watched.slot, order)
            self._told += [(order, rank, level.signal, event) for event in book.level(level, tip, now)]
        for alarm in alarms:
            tip = self._tip(step, watched, alarm, (order, version, position))
            now = step.labelled(book.open.get(alarm.signal), watched.slot, order)
            self._told += [(order, rank, alarm.signal, event) for event in book.alarm(alarm, tip, now)]
            opened = book.open.get(alarm.signal)
            if opened is not None:
                due = step.due(watched, opened)
                if due is not None:
                    step.agenda.add_due(due, watched.slot, alarm.signal)
                if rank == OUTPUT:
                    for other in watched.versions.values():
                        if other.output is not lane:
                            step.agenda.follow(other.output, order)

    def _tip(self, step: Step, watched: Watched, alarm: Alarm, where: tuple[int, int, Position]) -> Tip:
        order, number, position = where
        on_labels = alarm.signal == "error"
        version = watched.versions.get(number)
        coverage = step.coverage(version, order) if version is not None else None
        implicated = self._implicated(step, watched, (alarm, order)) if on_labels else ()
        labelled = alarm.rows if on_labels else 0
        return Tip(
            self.table.name(watched.slot), self.topics["predictions"], number, order, position, labelled, coverage, implicated
        )

    def _implicated(self, step: Step, watched: Watched, what: tuple[Alarm, int]) -> tuple[Implicated, ...]:
        (alarm, order), lane = what, watched.inputs
        if lane is not None:
            step.agenda.remember(lane, order)
        effects = lane.effects_since(alarm.change.offset, MIN_IMPLICATED_BLOCKS) if lane is not None else {}
        for signal, episode in watched.book.open.items():
            if signal.startswith("feature/") and abs(episode.effect) > abs(effects.get(signal, 0.0)):
                effects[signal] = episode.effect
        features = [(name, effect) for name, effect in effects.items() if name.startswith("feature/")]
        large = [one for one in features if abs(one[1]) >= self.config.min_effect]
        large.sort(key=lambda one: (-abs(one[1]), one[0]))
        return tuple(Implicated(name=name.removeprefix("feature/"), effect=effect) for name, effect in large[:MAX_IMPLICATED])

    def _due(self, step: Step, order: int, what: tuple[int, str]) -> None:
        slot, signal = what
        watched = self.roster.models[slot]
        episode = watched.book.open.get(signal)
        if episode is None or step.due(watched, episode, order - 1) != order:
            return
        model = self.table.name(slot)
        position = step.position_at(order, slot)
        labelled = step.labelled(episode, slot, order)
        events: list[Any] = watched.book.reached(model, episode, labelled, position) if step.is_joined(slot, order) else []
        if signal in watched.book.open and not episode.on_labels and step.seen(episode, slot, order) >= self.config.settle_rows:
            events.append(watched.book.settle(model, episode, labelled, position))
        self._told += [(order, DUE, signal, event) for event in events]
        due = step.due(watched, episode, order) if signal in watched.book.open else None
        if due is not None:
            step.agenda.add_due(due, slot, signal)

    def _score(self, step: Step) -> None:
        rows, slots = step.scored()

        def regression(slot: int) -> bool:
            return self.table.task(self.roster.by_slot[slot].model) == "regression"

        for slot, row in self.scores.add(slots, rows, regression):
            order = int(rows.order[row])
            last = Place(int(rows.prediction_offset[row]), int(rows.label_offset[row]), float(rows.ts[row]))
            event = self._metrics(step, self.roster.by_slot[slot], order, self.position("labels", last))
            self._told.append((order, METRICS, "", event))

    def _metrics(self, step: Step, version: Version, order: int, position: Position) -> MetricsComputed:
        window, total = self.scores.turn(version.slot)
        task = self.table.task(version.model)
        positive = positive_class(total, self.table.classes(version.model)) if task == "classification" else None
        predictions = step.predictions(version, order)
        return MetricsComputed(
            model=self.table.name(version.model),
            version=version.number,
            task=task,
            window=metrics(task, window, positive),
            total=metrics(task, total, positive),
            window_rows=window.rows,
            total_rows=total.rows,
            predictions=predictions,
            label_coverage=total.rows / predictions,
            counts=self.table.counts(version.model, order),
            computed_at=position,
        )

    def position(self, kind: str, place: Place) -> Position:
        """Return the position of a row's prediction or label."""
        offset = place.label_offset if kind == "labels" else place.offset
        return Position(topic=self.topics[kind], partition=self.partition, offset=offset, ts=place.ts)
