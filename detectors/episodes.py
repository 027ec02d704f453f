"""Episodes: one per change of a model's signal, opened by an alarm, updated as labels come in, closed once.

An episode outlives the version it began with: labelled rows of any version of the model count towards its milestones.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import msgspec

from ..schemas.config import MonitorConfig
from ..schemas.events import Direction, DriftClosed, DriftOpened, DriftUpdated, Implicated, Position, RowRange, Severity
from .alarms import Alarm, Level

RECOVERED_SD = 0.25
DriftEvent = DriftOpened | DriftUpdated | DriftClosed
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")


class Episode(msgspec.Struct):
    """Be an open episode. `labelled` and `seen` count labelled rows and predictions of the model up to the batch at hand.

    `opened_order`: of the tipping record while its batch lasts, else -1: only rows after it are still to be counted.
    """

    episode_id: str
    version: int
    signal: str
    direction: Direction
    severity: Severity
    before: float
    row_sd: float
    after_sum: float
    after_rows: int
    rows: RowRange
    labelled: int
    seen: int
    opened_order: int

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
    """Be the record that tipped a detector, and what was known of its model then; `predictions` is the name of that topic."""

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
    """Hold the open episodes of one model by signal."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self.open: dict[str, Episode] = {}

    def alarm(self, alarm: Alarm, tip: Tip, labelled_now: int) -> list[DriftEvent]:
        """Take an alarm; `labelled_now` is the count of the episode that is open for its signal, at the tipping record."""
        events: list[DriftEvent] = []
        known = self.open.get(alarm.signal)
        if known is not None:
            same = known.version == tip.version or not known.on_labels
            if same:
                known.after_sum, known.after_rows = alarm.after, 1
            # Few rows lie behind the mean after an alarm: it is back where its own error allows it.
            close = max(RECOVERED_SD, 3.0 / math.sqrt(alarm.after_rows)) * known.row_sd
            back = same and abs(alarm.after - known.before) < close
            known.labelled = labelled_now
            events.append(self.close(tip.model, known, "recovered" if back else "superseded", tip.position))
            if back:
                return events
        episode = self._episode(alarm, tip)
        self.open[alarm.signal] = episode
        events.append(_opened(alarm, tip, episode))
        return events

    def _episode(self, alarm: Alarm, tip: Tip) -> Episode:
        rows = RowRange(
            partition=tip.position.partition,
            start_offset=alarm.start.offset,
            labels_start_offset=alarm.start.label_offset,
            reference_start_offset=alarm.reference.offset,
            reference_labels_offset=alarm.reference.label_offset,
        )
        return Episode(
            episode_id=episode_id(tip.model, alarm.signal, tip.position),
            version=tip.version,
            signal=alarm.signal,
            direction=direction_of(alarm.signal, alarm.effect),
            severity=severity_of(alarm.effect, self.config),
            before=alarm.before,
            row_sd=alarm.row_sd,
            after_sum=alarm.after * max(alarm.rows, 1),
            after_rows=max(alarm.rows, 1),
            rows=rows,
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
        if level.fresh and abs(level.mean - episode.before) < RECOVERED_SD * episode.row_sd:
            episode.after_sum, episode.after_rows = level.mean, 1
            episode.labelled = labelled_now
            return [self.close(tip.model, episode, "recovered", tip.position)]
        severity = severity_of(episode.effect, self.config)
        if SEVERITIES.index(severity) <= SEVERITIES.index(episode.severity):
            return []
        episode.severity = severity
        return [_updated(tip.model, episode, labelled_now, tip.position)]

    def next_labelled(self, episode: Episode, labelled: int) -> int | None:
        """Return the count of labelled rows, beyond `labelled`, at which something is to be said; None where nothing is."""
        targets = [*self.config.milestones, *([self.config.settle_rows] if episode.on_labels else [])]
        return min((target for target in targets if target > labelled), default=None)

    def reached(self, model: str, episode: Episode, labelled: int, position: Position) -> list[DriftEvent]:
        """Say that an episode has `labelled` rows now."""
        events: list[DriftEvent] = []
        if labelled in self.config.milestones:
            events.append(_updated(model, episode, labelled, position))
        if episode.on_labels and labelled >= self.config.settle_rows:
            events.append(self.settle(model, episode, labelled, position))
        return events

    def settle(self, model: str, episode: Episode, labelled: int, position: Position) -> DriftClosed:
        """Close an episode whose new level is the baseline by now."""
        return self.close(model, msgspec.structs.replace(episode, labelled=labelled), "settled", position)

    def close(self, model: str, episode: Episode, reason: str, position: Position) -> DriftClosed:
        """Close an episode, counting `episode.labelled` rows."""
        del self.open[episode.signal]
        return DriftClosed(
            model=model,
            episode_id=episode.episode_id,
            version=episode.version,
            signal=episode.signal,
            reason=reason,  # type: ignore[arg-type]
            after_mean=episode.after,
            labelled_rows=episode.labelled,
            closed_at=position,
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
