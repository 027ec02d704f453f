"""The watch: signals of admitted and joined rows through baselines, blocks and detectors to episodes and metrics.

One call takes one batch; what it says does not depend on where the log was cut. Sums over rows are exact (blocks.py), full blocks
of all lanes are handled in the order of the rows that closed them, and a batch is cut where a version begins anew. What fails at one
block of a lane, one episode or one row is contained there: the lane begins anew at its next row, the episode is dropped, the row is
left out of the metrics, and a fault says so; all other models go on as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..schemas.config import MonitorConfig
from ..schemas.events import Event, Implicated, MetricsComputed, Position
from .agenda import DUE, ERROR, INPUTS, METRICS, OUTPUT, Agenda, lane_of
from .alarms import Alarm, Level, Place
from .blocks import Block, Flow
from .columns import InputRows, Ints, JoinedRows
from .episodes import Tip
from .faults import Fault, contained
from .lanes import Fired, Lane
from .metric_sums import Window
from .metrics import metrics, positive_class
from .model_table import ModelTable
from .positions import Positions
from .roster import Roster
from .scorekeeper import Scorekeeper, take_joined
from .step import Step, Stretch, take_inputs
from .versions import Turn, Version, Watched
from .watch_state import WatchState

MAX_IMPLICATED = 5
MIN_IMPLICATED_BLOCKS = 2
Told = tuple[int, int, str, Event]


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a full block: the stretch it lies in, what else is to be looked at there, and the record that closed it."""

    step: Step
    agenda: Agenda
    order: int
    rank: int


class Watch:
    """The watch over all models of one partition; `faults` is where it puts what failed and was contained."""

    def __init__(
        self, config: MonitorConfig, prefix: str, partition: int, table: ModelTable, faults: list[Fault] | None = None
    ) -> None:
        self.config = config
        self.table = table
        self.scores = Scorekeeper(config.metrics_every_rows)
        self.roster = Roster(config, self.scores, table)
        self._positions = Positions(prefix, partition)
        self._last_label = -1
        self._state = WatchState(self.roster, self._last_label)
        self._told: list[Told] = []
        self.faults: list[Fault] = [] if faults is None else faults
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
            self._take(Stretch(inputs, joined, runs))
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
                self._take(Stretch(take_inputs(inputs, row, stop), take_joined(joined, slice(pair, joined_stop))))
            row, pair = stop, joined_stop
            if turn is not None:
                self.roster.turn(turn)

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return the parts of the state that changed since the last call; None deletes a part."""
        return self._state.take_dirty(self._last_label)

    def take_new(self, slots: Iterable[int]) -> dict[str, bytes | None]:
        """Return the parts of models of `roster.unsaved`."""
        return self._state.take_new(slots)

    def whole(self) -> dict[str, bytes]:
        """Return all parts of the state."""
        return self._state.whole(self._last_label)

    def restore(self, parts: Mapping[str, bytes]) -> list[str]:
        """Take over the newest of every part and tell what begins anew under other settings; raises SnapshotInvalid."""
        self._last_label = self._state.restore(parts)
        return [f"begun anew: {count} x {reason}" for reason, count in sorted(self._state.begun_anew.items())]

    def _take(self, stretch: Stretch) -> None:
        step = Step(self.roster, self._positions, stretch, self._last_label)
        self._last_label = step.last_label
        agenda = Agenda(step.flows(), self._is_open)
        for watched in step.waiting():
            for episode in watched.book.waiting():
                self._wait(step, agenda, watched, episode.signal)
        for order, rank, what in agenda.visits():
            if rank == DUE:
                self._due(step, agenda, order, what)
            else:
                self._block(Look(step, agenda, order, rank), what)
        self._score(step)
        step.finish()

    def _is_open(self, slot: int, signal: str) -> bool:
        return signal in self.roster.models[slot].book.open

    def _fault(self, problem: BaseException, slot: int, part: str) -> None:
        self.faults.append(Fault(self.table.name(slot), part, contained(problem)))

    def _block(self, look: Look, source: tuple[Flow, int, Fired]) -> None:
        flow, run, fired = source
        lane = lane_of(flow, run)
        block = flow.take(run)
        try:
            self._told += self._closed(look, lane, block, fired)
        except BaseException as problem:  # noqa: BLE001 - one lane must not hurt another
            self._fault(problem, lane.model, lane.name)
            lane.begin()
        flow.handled(run, block)

    def _closed(self, look: Look, lane: Lane, block: Block, fired: Fired) -> list[Told]:
        alarms, levels = lane.close(block, fired)
        watched = self.roster.models[lane.model]
        if not alarms and not watched.book.open:
            return []
        if not levels:
            level = lane.level(block)
            levels = [] if level is None else [level]
        version = lane.version if look.rank != INPUTS else look.step.version_at(look.order)
        position = self._positions.of("labels" if look.rank == ERROR else "predictions", Place(*block.last))
        tip = Tip(self.table.name(watched.slot), self._positions.topics["predictions"], version, look.order, position, 0, None, ())
        return self._levels(look, watched, levels, tip) + self._alarms(look, (watched, lane), alarms, tip)

    def _levels(self, look: Look, watched: Watched, levels: list[Level], tip: Tip) -> list[Told]:
        told: list[Told] = []
        for level in levels:
            now = look.step.labelled(watched.book.open.get(level.signal), watched.slot, look.order)
            told += [(look.order, look.rank, level.signal, event) for event in watched.book.level(level, tip, now)]
            if level.fresh and level.signal in watched.book.open:
                self._wait(look.step, look.agenda, watched, level.signal, look.order)
        return told

    def _alarms(self, look: Look, who: tuple[Watched, Lane], alarms: list[Alarm], tip: Tip) -> list[Told]:
        told: list[Told] = []
        watched, lane = who
        book, step, agenda = watched.book, look.step, look.agenda
        for alarm in alarms:
            known = self._tip(look, watched, alarm, tip)
            now = step.labelled(book.open.get(alarm.signal), watched.slot, look.order)
            told += [(look.order, look.rank, alarm.signal, event) for event in book.alarm(alarm, known, now)]
            if alarm.signal in book.open:
                self._wait(step, agenda, watched, alarm.signal)
                for other in watched.versions.values() if look.rank in (OUTPUT, ERROR) else ():
                    its = other.output if look.rank == OUTPUT else other.error
                    if its is not lane:
                        agenda.follow(its, look.order)
        return told

    def _tip(self, look: Look, watched: Watched, alarm: Alarm, tip: Tip) -> Tip:
        on_labels = alarm.signal == "error"
        version = watched.versions.get(tip.version)
        coverage = look.step.coverage(version, look.order) if version is not None else None
        implicated = self._implicated(look, watched, alarm) if on_labels else ()
        return replace(tip, labelled=alarm.rows if on_labels else 0, coverage=coverage, implicated=implicated)

    def _implicated(self, look: Look, watched: Watched, alarm: Alarm) -> tuple[Implicated, ...]:
        lane = watched.inputs
        if lane is not None:
            look.agenda.remember(lane, look.order)
        effects = lane.effects_since(alarm.change.offset, MIN_IMPLICATED_BLOCKS) if lane is not None else {}
        for signal, episode in watched.book.open.items():
            if signal.startswith("feature/") and abs(episode.effect) > abs(effects.get(signal, 0.0)):
                effects[signal] = episode.effect
        features = [(name, effect) for name, effect in effects.items() if name.startswith("feature/")]
        large = [one for one in features if abs(one[1]) >= self.config.min_effect]
        large.sort(key=lambda one: (-abs(one[1]), one[0]))
        return tuple(Implicated(name=name.removeprefix("feature/"), effect=effect) for name, effect in large[:MAX_IMPLICATED])

    def _wait(self, step: Step, agenda: Agenda, watched: Watched, signal: str, after: int | None = None) -> None:
        """Note the record at which an episode reaches its next count, if that lies in this stretch."""
        episode = watched.book.of(signal)
        if episode is None:
            return
        try:
            order = step.due(watched, episode, after)
        except BaseException as problem:  # noqa: BLE001 - one episode must not hurt another
            self._drop(problem, watched, signal)
            return
        if order is not None:
            agenda.add_due(order, watched.slot, signal)

    def _due(self, step: Step, agenda: Agenda, order: int, what: tuple[int, str]) -> None:
        slot, signal = what
        watched = self.roster.models[slot]
        try:
            if not self._is_due(step, watched, signal, order):
                return
            self._told += self._reached(step, watched, signal, order)
        except BaseException as problem:  # noqa: BLE001 - as above
            self._drop(problem, watched, signal)
            return
        self._wait(step, agenda, watched, signal, order)

    def _drop(self, problem: BaseException, watched: Watched, signal: str) -> None:
        self._fault(problem, watched.slot, f"the episode of {signal}")
        watched.book.drop(signal)

    def _is_due(self, step: Step, watched: Watched, signal: str, order: int) -> bool:
        episode = watched.book.of(signal)
        return episode is not None and step.due(watched, episode, order - 1) == order

    def _reached(self, step: Step, watched: Watched, signal: str, order: int) -> list[Told]:
        book, slot = watched.book, watched.slot
        episode = book.of(signal)
        if episode is None:
            return []
        model = self.table.name(slot)
        position = step.position_at(order, slot)
        labelled = step.labelled(episode, slot, order)
        events: list[Event] = list(book.reached(model, episode, labelled, position)) if step.is_joined(slot, order) else []
        if signal in book.open and not episode.on_labels and step.seen(episode, slot, order) >= book.settle_rows(episode):
            events.append(book.settle(model, episode, labelled, position))
        return [(order, DUE, signal, event) for event in events]

    def _score(self, step: Step) -> None:
        rows, slots = step.scored()
        try:
            self._count(step, rows, slots)
        except BaseException as problem:
            sound = self._sound(rows, slots, np.arange(len(slots)))
            if len(sound) == len(slots):
                raise
            contained(problem)
            if len(sound):
                self._count(step, take_joined(rows, sound), slots[sound])

    def _sound(self, rows: JoinedRows, slots: Ints, at: Ints) -> Ints:
        """Return the rows that can be counted, found by halves; nothing is counted yet."""
        try:
            self.scores.places(slots[at], take_joined(rows, at), self._is_regression)
        except BaseException as problem:  # noqa: BLE001 - one row must not hurt another
            if len(at) == 1:
                self._fault(problem, self.roster.by_slot[int(slots[at[0]])].model, "metrics of a row")
                return at[:0]
            half = len(at) // 2
            return np.concatenate([self._sound(rows, slots, part) for part in (at[:half], at[half:])])
        return at

    def _is_regression(self, slot: int) -> bool:
        return self.table.task(self.roster.by_slot[slot].model) == "regression"

    def _count(self, step: Step, rows: JoinedRows, slots: Ints) -> None:
        for slot, row in self.scores.add(slots, rows, self._is_regression):
            window, total = self.scores.turn(slot)
            version, order = self.roster.by_slot[slot], int(rows.order[row])
            last = Place(int(rows.prediction_offset[row]), int(rows.label_offset[row]), float(rows.ts[row]))
            where = step.predictions(version, order), order, self._positions.of("labels", last)
            try:
                self._told.append((order, METRICS, f"{version.number:012d}", self._metrics(version, window, total, where)))
            except BaseException as problem:  # noqa: BLE001 - one version must not hurt another
                self._fault(problem, version.model, f"metrics of version {version.number}")

    def _metrics(self, version: Version, window: Window, total: Window, where: tuple[int, int, Position]) -> MetricsComputed:
        predictions, order, position = where
        task = self.table.task(version.model)
        positive = positive_class(total, *self.table.known_classes(version.model)) if task == "classification" else None
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
