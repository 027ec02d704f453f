"""One stretch of a batch in which no version begins anew: its rows by version and lane, with running counts as of any record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..schemas.events import Position
from .agenda import ERROR, INPUTS, OUTPUT
from .alarms import Place
from .blocks import Feed, Flow
from .columns import FeatureGroup, InputRows, Ints, JoinedRows
from .episodes import Episode
from .positions import Positions
from .roster import Roster, group_layout
from .scorekeeper import take_joined
from .versions import Runs, Version, Watched, version_runs


@dataclass(frozen=True, slots=True)
class Stretch:
    """The rows of a step, those of forgotten versions included; `runs` of the inputs, where they are known."""

    inputs: InputRows
    joined: JoinedRows
    runs: Runs | None = None


class Step:
    """The rows of a stretch by version; `last_label` is the newest label that was joined, first before it, then with it."""

    def __init__(self, roster: Roster, positions: Positions, stretch: Stretch, last_label: int) -> None:
        inputs, joined, runs = stretch.inputs, stretch.joined, stretch.runs
        self.roster = roster
        self.positions = positions
        self.inputs = inputs
        self._runs = runs if runs is not None else version_runs(inputs.model, inputs.version)
        self._versions = [roster.version(model, number) for model, number in self._runs.keys]
        self._row_version = spread(self._runs, [version.slot for version in self._versions])
        self._label_before_it = self.last_label = last_label
        if len(joined.order):
            self.last_label = max(last_label, int(joined.label_offset.max()))
        self._all_labels = joined
        self._joined_runs = version_runs(joined.model, joined.version)
        known = [self._known(*key) for key in self._joined_runs.keys]
        slots = spread(self._joined_runs, [-1 if version is None else version.slot for version in known])
        if (slots < 0).any():
            keep = np.flatnonzero(slots >= 0)
            joined, slots = take_joined(joined, keep), slots[keep]
            self._joined_runs = version_runs(joined.model, joined.version)
        self.joined = joined
        self._joined_version = slots
        self._joined_versions = [version for version in known if version is not None]
        self._orders: dict[tuple[bool, int], Ints] = {}

    def _known(self, model: int, number: int) -> Version | None:
        watched = self.roster.models.get(model)
        return watched.versions.get(number) if watched is not None else None

    def flows(self) -> list[tuple[int, Flow]]:
        """Return the flows of all banks with their ranks."""
        found: list[tuple[int, Flow]] = []
        roster, inputs, joined = self.roster, self.inputs, self.joined
        if len(inputs.order):
            label = self._label_before()
            found += self._input_flows(label)
            lane = spread(self._runs, [version.output.index for version in self._versions])
            found.append((OUTPUT, Flow(roster.outputs, self._feed(lane, inputs.confidence[:, None], label))))
        if len(joined.order):
            lane = spread(self._joined_runs, [version.error.index for version in self._joined_versions])
            error = np.where(np.isfinite(joined.error), joined.error, np.nan)[:, None]
            columns = (joined.order, joined.prediction_offset, joined.label_offset, joined.ts)
            found.append((ERROR, Flow(roster.errors, Feed(lane, error, *columns))))
        return found

    def _label_before(self) -> Ints:
        """Return for every prediction the offset after the newest label joined before it."""
        joined = self._all_labels
        if not len(joined.order):
            return np.full(len(self.inputs.order), self._label_before_it + 1, np.int64)
        newest = np.maximum.accumulate(np.append(self._label_before_it, joined.label_offset))
        return newest[np.searchsorted(joined.order, self.inputs.order)] + 1

    def _feed(self, lane: Ints, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], label: Ints) -> Feed:
        return Feed(lane, values, self.inputs.order, self.inputs.offset, label, self.inputs.ts)

    def _input_flows(self, label: Ints) -> list[tuple[int, Flow]]:
        models = self.roster.models
        lanes = [-1 if (inputs := models[model].inputs) is None else inputs.index for model, _ in self._runs.keys]
        lane = spread(self._runs, lanes)
        by_width: dict[int, list[FeatureGroup]] = {}
        for group in self.inputs.groups:
            if len(group.rows):
                by_width.setdefault(len(group_layout(group)) + 1, []).append(group)
        found = []
        for width, groups in by_width.items():
            parts = []
            for group in groups:
                values = group.values if group.numeric.all() else group.values[:, group.numeric]
                parts.append(np.column_stack((values, self.inputs.latency_ms[group.rows])))
            rows = groups[0].rows if len(groups) == 1 else np.concatenate([group.rows for group in groups])
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)
            feed = self._feed(lane, values, label)
            if len(rows) < len(lane) or len(groups) > 1:
                feed = Feed(lane[rows], values, feed.order[rows], feed.offset[rows], label[rows], feed.ts[rows])
            found.append((INPUTS, Flow(self.roster.input_banks[width], feed)))
        return found

    def scored(self) -> tuple[JoinedRows, Ints]:
        """Return the joined rows and the version slot of each."""
        return self.joined, self._joined_version

    def _model_orders(self, on_labels: bool, slot: int) -> Ints:
        found = self._orders.get((on_labels, slot))
        if found is None:
            rows: InputRows | JoinedRows = self.joined if on_labels else self.inputs
            found = self._orders[on_labels, slot] = rows.order[rows.model == slot]
        return found

    def _count(self, episode: Episode, slot: int, order: int, on_labels: bool) -> int:
        orders = self._model_orders(on_labels, slot)
        before = int(np.searchsorted(orders, episode.opened_order, "right"))
        return max(0, int(np.searchsorted(orders, order, "right")) - before)

    def labelled(self, episode: Episode | None, slot: int, order: int) -> int:
        """Return the labelled rows of an open episode up to a record, inclusive; 0 without an episode."""
        return 0 if episode is None else episode.labelled + self._count(episode, slot, order, on_labels=True)

    def seen(self, episode: Episode, slot: int, order: int) -> int:
        """Return the predictions of an open episode's model up to a record."""
        return episode.seen + self._count(episode, slot, order, on_labels=False)

    def is_joined(self, slot: int, order: int) -> bool:
        """Return whether the record completed a pair of the model."""
        orders = self._model_orders(on_labels=True, slot=slot)
        at = int(np.searchsorted(orders, order))
        return at < len(orders) and int(orders[at]) == order

    def waiting(self) -> list[Watched]:
        """Return the models of the stretch with episodes that wait for a count, in the order of their slots."""
        slots = {model for model, _ in (*self._runs.keys, *self._joined_runs.keys)}
        found = [self.roster.models[slot] for slot in sorted(slots)]
        return [watched for watched in found if watched.book.open or watched.book.settled]

    def due(self, watched: Watched, episode: Episode, after: int | None = None) -> int | None:
        """Return the order after `after` at which an episode reaches its next count, or None: not in this stretch."""
        after = episode.opened_order if after is None else after
        dues = []
        labelled = self.labelled(episode, watched.slot, after)
        target = watched.book.next_labelled(episode, labelled)
        if target is not None:
            dues.append(self._nth(episode, watched.slot, target - episode.labelled, on_labels=True))
        if not episode.on_labels and episode.signal in watched.book.open:
            at = self.seen(episode, watched.slot, after)
            need = max(watched.book.settle_rows(episode), at + 1) - episode.seen
            dues.append(self._nth(episode, watched.slot, need, on_labels=False))
        return min((order for order in dues if order is not None and order > after), default=None)

    def _nth(self, episode: Episode, slot: int, need: int, on_labels: bool) -> int | None:
        orders = self._model_orders(on_labels, slot)
        at = int(np.searchsorted(orders, episode.opened_order, "right")) + need - 1
        return int(orders[at]) if 0 <= at < len(orders) else None

    def position_at(self, order: int, slot: int) -> Position:
        """Return the label that completed a pair at this record, else the prediction."""
        if self.is_joined(slot, order):
            rows, row = self.joined, int(np.searchsorted(self.joined.order, order))
            place = Place(int(rows.prediction_offset[row]), int(rows.label_offset[row]), float(rows.ts[row]))
            return self.positions.of("labels", place)
        row = int(np.searchsorted(self.inputs.order, order))
        return self.positions.of("predictions", Place(int(self.inputs.offset[row]), 0, float(self.inputs.ts[row])))

    def version_at(self, order: int) -> int:
        """Return the version that made the prediction at this record."""
        return int(self.inputs.version[np.searchsorted(self.inputs.order, order)])

    def predictions(self, version: Version, order: int) -> int:
        """Return the predictions a version made up to a record."""
        orders = self.inputs.order[self._row_version == version.slot]
        return version.predictions + int(np.searchsorted(orders, order, "right"))

    def coverage(self, version: Version, order: int) -> float:
        """Return the share of a version's predictions that had a label by then."""
        orders = self.joined.order[self._joined_version == version.slot]
        labelled = version.labelled + int(np.searchsorted(orders, order, "right"))
        return labelled / max(self.predictions(version, order), 1)

    def finish(self) -> None:
        """Count the rows of the stretch."""
        roster, runs = self.roster, self._runs
        several = Counter(model for model, _ in runs.keys)
        newest_rows = runs.rows[np.array(runs.ends, np.int64) - 1]
        seen = newest_rows.tolist(), self.inputs.time_ms[newest_rows].tolist()
        for version, start, end, newest, seen_ms in zip(self._versions, runs.starts, runs.ends, *seen, strict=True):
            version.predictions += end - start
            version.dirty = True
            watched = roster.models[version.model]
            watched.seen_ms = max(watched.seen_ms, seen_ms)
            if several[version.model] == 1:
                watched.predictions += end - start
                version.last_seen = watched.predictions
            else:
                orders = self._model_orders(on_labels=False, slot=version.model)
                version.last_seen = watched.predictions + int(np.searchsorted(orders, self.inputs.order[newest], "right"))
        for run, version in enumerate(self._versions):
            if several[version.model] > 1:
                roster.models[version.model].predictions += runs.ends[run] - runs.starts[run]
        for run, version in enumerate(self._joined_versions):
            version.labelled += self._joined_runs.ends[run] - self._joined_runs.starts[run]
            version.dirty = roster.models[version.model].is_labelled = True
        touched = {version.model for version in (*self._versions, *self._joined_versions)}
        roster.touched |= touched
        roster.fresh_inputs |= {version.model for version in self._versions}
        for watched in self.waiting():
            for episode in watched.book.waiting():
                self._carry(episode, watched.slot)

    def _carry(self, episode: Episode, slot: int) -> None:
        for on_labels in (True, False):
            orders = self._model_orders(on_labels, slot)
            count = len(orders) - int(np.searchsorted(orders, episode.opened_order, "right"))
            if on_labels:
                episode.labelled += count
            else:
                episode.seen += count
        episode.opened_order = -1


def spread(runs: Runs, values: list[int]) -> Ints:
    """Return a column with `values[i]` in every row of run i."""
    if len(values) == 1:
        return np.full(len(runs.rows), values[0], np.int64)
    column = np.empty(len(runs.rows), np.int64)
    sizes = np.array(runs.ends, np.int64) - np.array(runs.starts, np.int64)
    column[runs.rows] = np.repeat(np.array(values, np.int64), sizes)
    return column


def take_inputs(rows: InputRows, start: int, stop: int) -> InputRows:
    """Return the rows in [start, stop)."""
    part = slice(start, stop)
    groups = []
    for group in rows.groups:
        first, last = np.searchsorted(group.rows, (start, stop)).tolist()
        if first < last:
            groups.append(FeatureGroup(group.names, group.rows[first:last] - start, group.values[first:last], group.numeric))
    first = (rows.order[part], rows.model[part], rows.version[part], rows.offset[part])
    return InputRows(*first, rows.ts[part], rows.time_ms[part], rows.confidence[part], rows.latency_ms[part], groups)
