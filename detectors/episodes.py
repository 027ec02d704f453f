"""Episodes: one per change of a model's signal, opened by an alarm, updated as labels come in, closed once.

An episode outlives the version it began with: labelled rows of any version of the model count towards its milestones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from ..schemas.config import MonitorConfig
from ..schemas.events import Direction, DriftClosed, DriftOpened, DriftUpdated, Implicated, Position, RowRange, Severity
from .alarms import Alarm, Level
from .recovery import Change

Reason = Literal["settled", "recovered", "superseded"]
DriftEvent = DriftOpened | DriftUpdated | DriftClosed
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")


class Episode(msgspec.Struct):
    """One change of a signal. `labelled` and `seen` count labelled rows and predictions of the model up to the batch at hand.

    `opened_order`: of the tipping record while its batch lasts, else -1: only rows after it are still to be counted. `newer_rows` came
    since the signal has a new baseline. `turned`: an alarm in the other direction; the baseline after it shows whether it led back.
    `change`: what recovery is measured by. Where a model became worse and worse still, it is the level before the first that counts.
    """

    episode_id: str
    version: int
    signal: str
    direction: Direction
    severity: Severity
    before: float
    row_sd: float
    change: Change
    after_sum: float
    after_rows: int
    rows: RowRange
    labelled: int
    seen: int
    opened_order: int
    newer_sum: float = 0.0
    newer_rows: int = 0
    turned: Alarm | None = None

    @property
    def on_labels(self) -> bool:
        """Return whether labelled rows settle the episode; predictions settle all others."""
        return self.signal == "error"

    @property
    def after(self) -> float:
        """Return the mean since the change."""
        return self.after_sum / self.after_rows

    @property
    def effect(self) -> float:
        """Return (after - before) in standard deviations of the reference."""
        return (self.after - self.before) / self.row_sd


@dataclass(frozen=True, slots=True)
class Tip:
    """The record that tipped a detector, and what was known of its model then; `predictions` is the name of that topic."""

    model: str
    predictions: str
    version: int
    order: int
    position: Position
    labelled: int
    coverage: float | None
    implicated: tuple[Implicated, ...]


def direction_of(signal: str, effect: float) -> Direction:
    """Return what a rise or fall of a signal means."""
    if signal in ("error", "latency_ms") or signal.startswith("missing/"):
        return "worse" if effect > 0 else "better"
    return "shifted"


def severity_of(effect: float, config: MonitorConfig) -> Severity:
    """Return the severity of an effect in standard deviations."""
    size = abs(effect)
    return "high" if size >= config.high_effect else "medium" if size >= config.medium_effect else "low"


def episode_id(model: str, signal: str, position: Position) -> str:
    """Return an id that follows from the tipping record alone."""
    text = f"{model}\0{signal}\0{position.topic}\0{position.partition}\0{position.offset}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class EpisodeBook:
    """The episodes of one model by signal: open ones, and settled ones that have milestones to reach."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self.open: dict[str, Episode] = {}
        self.settled: dict[str, Episode] = {}

    def waiting(self) -> list[Episode]:
        """Return all episodes that wait for a count."""
        return [*self.open.values(), *self.settled.values()]

    def of(self, signal: str) -> Episode | None:
        """Return the episode of a signal that waits for a count, or None."""
        return self.open.get(signal) or self.settled.get(signal)

    def drop(self, signal: str) -> None:
        """Forget the episode of a signal."""
        self.open.pop(signal, None)
        self.settled.pop(signal, None)

    def alarm(self, alarm: Alarm, tip: Tip, labelled_now: int) -> list[DriftEvent]:
        """Take an alarm; `labelled_now` is the count of the episode that is open for its signal, at the tipping record."""
        events: list[DriftEvent] = []
        known = self.open.get(alarm.signal)
        if known is not None:
            turn = self._turn(known, alarm, tip)
            if turn == "undecided":
                known.turned = alarm
                return events
            known.labelled = labelled_now
            events.append(self.close(tip.model, known, turn, tip.position))
            if turn == "recovered":
                return events
        return [*events, self._open(alarm, tip, known)]

    def _turn(self, known: Episode, alarm: Alarm, tip: Tip) -> Reason | Literal["undecided"]:
        """Return what an alarm means for the episode that is open: few rows lie behind the mean after it."""
        if known.version != tip.version and known.on_labels:
            return "superseded"
        known.after_sum, known.after_rows = alarm.after, 1
        if (alarm.after - alarm.before) * (known.change.after - known.change.before) > 0.0:
            return "superseded"
        change = replace(known.change, after=alarm.before, after_rows=alarm.before_rows)
        if known.direction != "worse":
            return "recovered" if change.is_back(alarm.after, alarm.after_rows) else "superseded"
        return "undecided" if change.leads_back(alarm.after) else "superseded"

    def _open(self, alarm: Alarm, tip: Tip, superseded: Episode | None) -> DriftOpened:
        episode = self._episode(alarm, tip)
        if superseded is not None and superseded.direction == episode.direction == "worse":
            first = superseded.change
            episode.change = replace(episode.change, before=first.before, before_rows=first.before_rows)
        self.settled.pop(alarm.signal, None)
        self.open[alarm.signal] = episode
        return _opened(alarm, tip, episode)

    def _episode(self, alarm: Alarm, tip: Tip) -> Episode:
        direction = direction_of(alarm.signal, alarm.effect)
        change = Change(
            before=alarm.before,
            before_rows=alarm.before_rows,
            after=alarm.after,
            after_rows=alarm.after_rows,
            row_sd=alarm.row_sd,
            correlation_rows=alarm.correlation_rows,
            is_share=alarm.is_share,
            one_sided=direction == "worse",
        )
        return Episode(
            episode_id=episode_id(tip.model, alarm.signal, tip.position),
            version=tip.version,
            signal=alarm.signal,
            direction=direction,
            severity=severity_of(alarm.effect, self.config),
            before=alarm.before,
            row_sd=alarm.row_sd,
            change=change,
            after_sum=alarm.after * max(alarm.rows, 1),
            after_rows=max(alarm.rows, 1),
            rows=_rows(alarm, tip.position),
            labelled=tip.labelled,
            seen=alarm.rows,
            opened_order=tip.order,
        )

    def level(self, level: Level, tip: Tip, labelled_now: int) -> list[DriftEvent]:
        """Take newer rows of a signal of the version an episode began with."""
        episode = self.open.get(level.signal)
        if episode is None or (episode.on_labels and episode.version != tip.version):
            return []
        episode.after_sum += level.mean * level.rows
        episode.after_rows += level.rows
        if level.fresh:
            episode.newer_sum, episode.newer_rows = level.mean * level.rows, level.rows
        elif episode.newer_rows:
            episode.newer_sum += level.mean * level.rows
            episode.newer_rows += level.rows
        if level.fresh and episode.turned is not None:
            return self._turned(episode, episode.turned, tip, labelled_now)
        if episode.newer_rows and episode.change.is_back(episode.newer_sum / episode.newer_rows, episode.newer_rows):
            return [self._recover(episode, tip, labelled_now)]
        severity = severity_of(episode.effect, self.config)
        if SEVERITIES.index(severity) <= SEVERITIES.index(episode.severity):
            return []
        episode.severity = severity
        return [_updated(tip.model, episode, labelled_now, tip.position)]

    def _turned(self, episode: Episode, turned: Alarm, tip: Tip, labelled_now: int) -> list[DriftEvent]:
        """Decide what an alarm in the other direction was, now that there are rows enough after it."""
        mean, rows, episode.turned = episode.newer_sum / episode.newer_rows, episode.newer_rows, None
        change = replace(episode.change, after=turned.before, after_rows=turned.before_rows)
        if change.is_back(mean, rows):
            return [self._recover(episode, tip, labelled_now, _rows(turned, tip.position))]
        effect = (mean - turned.before) / turned.row_sd
        if change.is_near(mean):
            episode.change = change
            return []
        if abs(effect) < self.config.min_effect or effect * turned.effect < 0.0:
            return []
        episode.after_sum, episode.after_rows, episode.labelled = mean, 1, labelled_now
        closed = self.close(tip.model, episode, "superseded", tip.position)
        known = replace(turned, after=mean, effect=effect, rows=turned.rows + rows, after_rows=turned.after_rows + rows)
        return [closed, self._open(known, replace(tip, labelled=known.rows if episode.on_labels else 0), episode)]

    def _recover(self, episode: Episode, tip: Tip, labelled_now: int, rows: RowRange | None = None) -> DriftClosed:
        episode.after_sum, episode.after_rows, episode.labelled = episode.newer_sum / episode.newer_rows, 1, labelled_now
        return self.close(tip.model, episode, "recovered", tip.position, rows)

    def settle_rows(self, episode: Episode) -> int:
        """Return after how many rows an episode settles; one that has turned is given the time to show what it turned into."""
        return self.config.settle_rows * (1 if episode.turned is None else 2)

    def next_labelled(self, episode: Episode, labelled: int) -> int | None:
        """Return the count of labelled rows, beyond `labelled`, at which something is to be said; None where nothing is."""
        targets = [target for target in self.config.milestones if target > labelled]
        if episode.on_labels and episode.signal in self.open:
            targets.append(max(self.settle_rows(episode), labelled + 1))
        return min(targets, default=None)

    def reached(self, model: str, episode: Episode, labelled: int, position: Position) -> list[DriftEvent]:
        """Say that an episode has `labelled` rows now."""
        events: list[DriftEvent] = []
        if labelled in self.config.milestones:
            events.append(_updated(model, episode, labelled, position))
        if episode.signal not in self.open:
            if self.next_labelled(episode, labelled) is None:
                del self.settled[episode.signal]
        elif episode.on_labels and labelled >= self.settle_rows(episode):
            events.append(self.settle(model, episode, labelled, position))
        return events

    def settle(self, model: str, episode: Episode, labelled: int, position: Position) -> DriftClosed:
        """Close an episode whose new level is the baseline by now; one that made the model worse goes on to its milestones."""
        closed = self.close(model, msgspec.structs.replace(episode, labelled=labelled), "settled", position)
        if episode.direction == "worse" and self.next_labelled(episode, labelled) is not None:
            self.settled[episode.signal] = episode
        return closed

    def close(self, model: str, episode: Episode, reason: Reason, position: Position, rows: RowRange | None = None) -> DriftClosed:
        """Close an episode, counting `episode.labelled` rows."""
        del self.open[episode.signal]
        return DriftClosed(
            model=model,
            episode_id=episode.episode_id,
            version=episode.version,
            signal=episode.signal,
            reason=reason,
            after_mean=episode.after,
            labelled_rows=episode.labelled,
            closed_at=position,
            rows=rows,
        )


def _rows(alarm: Alarm, position: Position) -> RowRange:
    return RowRange(
        partition=position.partition,
        start_offset=alarm.start.offset,
        labels_start_offset=alarm.start.label_offset,
        reference_start_offset=alarm.reference.offset,
        reference_labels_offset=alarm.reference.label_offset,
    )


def _opened(alarm: Alarm, tip: Tip, episode: Episode) -> DriftOpened:
    where = tip.position
    change = Position(
        topic=tip.predictions,
        partition=where.partition,
        offset=alarm.change.offset,
        ts=alarm.change.ts,
    )
    return DriftOpened(
        model=tip.model,
        episode_id=episode.episode_id,
        version=tip.version,
        signal=alarm.signal,
        detector=alarm.detector,
        parameters=alarm.parameters,
        direction=episode.direction,
        severity=episode.severity,
        before_mean=alarm.before,
        after_mean=alarm.after,
        effect=alarm.effect,
        change_point=change,
        detected_at=where,
        rows=episode.rows,
        labelled_rows=tip.labelled,
        implicated=tip.implicated,
        label_coverage=tip.coverage,
    )


def _updated(model: str, episode: Episode, labelled: int, position: Position) -> DriftUpdated:
    return DriftUpdated(
        model=model,
        episode_id=episode.episode_id,
        version=episode.version,
        signal=episode.signal,
        direction=episode.direction,
        severity=episode.severity,
        after_mean=episode.after,
        effect=episode.effect,
        rows=episode.rows,
        labelled_rows=labelled,
        updated_at=position,
    )
