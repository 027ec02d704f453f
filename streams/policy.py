"""Decide when a drift episode starts a repair and when it alerts: pure, and safe to run twice over the same events.

The state is what the topics say; what is due follows from the state alone. So a control plane that lost its memory folds the topics
again, asks for what is due, and neither forgets a job nor asks for one twice: a request carries the same id each time. An alert ends by
recovery, by a repair that restored the level, or by a person; an episode that merely settles leaves it as "degraded since".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..detectors.recovery import Change
from ..schemas.config import PolicyConfig
from ..schemas.events import (
    AlertFired,
    AlertResolved,
    DriftClosed,
    DriftOpened,
    DriftUpdated,
    Event,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobRequested,
    RowRange,
    Severity,
)

KEPT_EPISODES = 64
KEPT_UNRESOLVED = 256
KEPT_ENDED_JOBS = 256
# Rows behind the level before a change, which an event does not tell: it is taken as known.
KNOWN_ROWS = 1e6
LEAST_SD = 1e-12
ALARM_ROWS = 200
KEPT_ARM = "champion"
ERROR_OF: dict[str, Callable[[float], float]] = {"accuracy": lambda value: 1.0 - value, "negative_mae": lambda value: -value}
"""The error, as drift events tell it, behind each metric of the gate."""


class Episode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the policy knows of one episode that makes a model worse; `asked` maps the milestones asked for to rows known then.

    `since`: event time of the change, in seconds. `closed`: why the episode is closed. `cleared`: why the alert may end, once it may.
    `degraded`: the alert says that the level stays where it is.
    """

    episode_id: str
    version: int
    signal: str
    severity: Severity
    rows: RowRange
    labelled_rows: int
    effect: float = 0.0
    before: float = 0.0
    after: float = 0.0
    row_sd: float = 0.0
    since: float = 0.0
    open: bool = True
    closed: str = ""
    cleared: str = ""
    asked: dict[int, int] = msgspec.field(default_factory=dict)
    alerted: bool = False
    degraded: bool = False
    resolved: bool = False

    @property
    def lasts(self) -> bool:
        """Return whether the model is still worse for all that is known: milestones hold, and the alert stays."""
        return self.open or (self.closed == "settled" and not self.cleared and not self.resolved)

    def is_back(self, mean: float, rows: int) -> bool:
        """Return whether a mean over so many newer rows shows that the level before the change is back."""
        return rows > 0 and self._change().is_back(mean, rows)

    def is_near(self, mean: float) -> bool:
        """Return whether a mean lies near the level before the change, or beyond it."""
        return self._change().is_near(mean)

    def _change(self) -> Change:
        before_rows, after_rows = KNOWN_ROWS, max(self.labelled_rows, 1)
        return Change(self.before, before_rows, self.after, after_rows, max(self.row_sd, LEAST_SD), 1.0, False, True)  # noqa: FBT003


class Better(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest episode in which a signal became better: its mean since then, and the labelled rows behind it."""

    episode_id: str
    version: int
    mean: float
    rows: int


class ModelState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The policy's memory of one model: episodes by id, jobs that wait or run, the newest jobs that ended.

    `better`: by signal, since its newest change for the worse. `promoted`: the version that a job made serve last.
    """

    episodes: dict[str, Episode] = msgspec.field(default_factory=dict)
    running: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    better: dict[str, Better] = msgspec.field(default_factory=dict)
    promoted: int | None = None


class Policy:
    """The rules that turn drift and job events into requests and alerts; events of other kinds change nothing.

    `definition`: the whole of the recipe that is asked for, None where every worker knows it by its name.
    """

    def __init__(self, config: PolicyConfig, definition: dict[str, Any] | None = None) -> None:
        self.config = config
        self._definition = definition

    def fold(self, event: Event, state: ModelState) -> ModelState:
        """Return the state after `event`; folding an event again changes nothing."""
        match event:
            case DriftOpened():
                return self._opened(event, state)
            case DriftUpdated():
                return self._updated(event, state)
            case DriftClosed():
                return _closed(event, state)
            case JobRequested():
                return self._asked(event, state)
            case JobFinished():
                return _ended(_finished(event, state), event.job_id)
            case JobFailed() | JobCancelled():
                return _ended(state, event.job_id)
            case AlertFired() if event.episode_id is not None:
                told = {"degraded": True} if event.degraded_since is not None else {}
                return _with(state, event.episode_id, alerted=True, **told)
            case AlertResolved():
                return _with(state, event.alert_id.removeprefix("drift-"), alerted=True, resolved=True)
        return state

    def due(self, model: str, state: ModelState) -> tuple[list[Event], ModelState]:
        """Return requests and alerts that are due for `model`, and the state in which they are sent."""
        events: list[Event] = []
        for episode in list(state.episodes.values()):
            events += alerts(model, episode, state)
        request = self._next_request(model, state)
        if request is not None:
            events.append(request)
        for event in events:
            state = self.fold(event, state)
        return events, state

    def decide(self, event: Event, state: ModelState) -> tuple[list[JobRequested], ModelState]:
        """Return the jobs that `event` makes due, and the state in which they are asked for."""
        due, after = self.due(event.model, self.fold(event, state))
        return [one for one in due if isinstance(one, JobRequested)], after

    def _opened(self, event: DriftOpened, state: ModelState) -> ModelState:
        if event.direction == "better":
            return _better(event, event.after_mean, state)
        if event.direction != "worse" or event.episode_id in state.episodes:
            return state
        episode = Episode(
            episode_id=event.episode_id,
            version=event.version,
            signal=event.signal,
            severity=event.severity,
            rows=event.rows,
            labelled_rows=event.labelled_rows,
            effect=event.effect,
            before=event.before_mean,
            after=event.after_mean,
            row_sd=(event.after_mean - event.before_mean) / event.effect if event.effect else 0.0,
            since=event.change_point.ts,
        )
        better = {signal: one for signal, one in state.better.items() if signal != event.signal}
        episodes = _bounded({**state.episodes, episode.episode_id: episode})
        return msgspec.structs.replace(state, episodes=episodes, better=better)

    def _updated(self, event: DriftUpdated, state: ModelState) -> ModelState:
        if event.direction == "better":
            return _better(event, event.after_mean, state) if _is_newest(event, state) else state
        known = state.episodes.get(event.episode_id)
        if known is None or event.labelled_rows < known.labelled_rows:
            return state
        return _with(
            state,
            event.episode_id,
            severity=event.severity,
            rows=event.rows,
            labelled_rows=event.labelled_rows,
            effect=event.effect,
            after=event.after_mean,
        )

    def _asked(self, event: JobRequested, state: ModelState) -> ModelState:
        if event.job_id not in state.running and event.job_id not in state.ended:
            state = msgspec.structs.replace(state, running=(*state.running, event.job_id))
        known = state.episodes.get(event.episode_id) if event.episode_id is not None else None
        milestone = event.job_id.rpartition("-")[2]
        if known is None or event.requested_by != "policy" or not milestone.isdecimal():
            return state
        return _with(state, known.episode_id, asked={**known.asked, int(milestone): event.labelled_rows})

    def _next_request(self, model: str, state: ModelState) -> JobRequested | None:
        if not self.config.enabled or state.running:
            return None
        for episode in reversed(state.episodes.values()):
            milestone = self._milestone(episode)
            if milestone is not None:
                return JobRequested(
                    model=model,
                    job_id=f"{episode.episode_id}-{milestone}",
                    recipe=self.config.recipe,
                    requested_by="policy",
                    rows=episode.rows,
                    episode_id=episode.episode_id,
                    labelled_rows=episode.labelled_rows,
                    version=episode.version,
                    definition=self._definition,
                )
        return None

    def _milestone(self, episode: Episode) -> int | None:
        """Return the highest milestone that is reached and not asked for; a lower one would train on the same rows."""
        config = self.config
        if not episode.lasts or episode.signal not in config.signals or len(episode.asked) >= config.max_jobs_per_episode:
            return None
        reached = [rows for rows in (config.first_rows, config.second_rows) if rows <= episode.labelled_rows]
        if not reached or any(asked >= max(reached) for asked in episode.asked):
            return None
        if episode.asked and episode.labelled_rows - max(episode.asked.values()) < config.cool_down_rows:
            return None
        return max(reached)


def rebuild(policy: Policy, events: Iterable[Event]) -> dict[str, ModelState]:
    """Return the state of every model after `events`: drift first, then jobs and job events, then alerts, each in log order."""
    states: dict[str, ModelState] = {}
    for event in events:
        before = states.get(event.model, ModelState())
        after = policy.fold(event, before)
        if after is not before:
            states[event.model] = after
    return states


def alert_id(episode_id: str) -> str:
    """Return the id of the one alert that an episode raises."""
    return f"drift-{episode_id}"


def alerts(model: str, episode: Episode, state: ModelState) -> list[Event]:
    """Return what is to be told of an episode's alert: that it fires, that it lasts, that it ends."""
    if episode.resolved:
        return []
    events: list[Event] = []
    name = alert_id(episode.episode_id)
    said = f"{model} version {episode.version}: {episode.signal}"
    if not episode.alerted:
        summary = (
            f"{said} became worse by {abs(episode.effect):.2f} standard deviations"
            f" ({episode.labelled_rows} labelled rows since the change)"
        )
        events.append(
            AlertFired(model=model, alert_id=name, severity=episode.severity, summary=summary, episode_id=episode.episode_id)
        )
    ended = episode.cleared or _came_back(episode, state)
    if ended:
        events.append(AlertResolved(model=model, alert_id=name, summary=f"{model}: {episode.signal} {ended}"))
    elif episode.closed == "settled" and not episode.degraded:
        summary = f"{said} is degraded since {_time(episode.since)}: {episode.after:.3g}, was {episode.before:.3g} before"
        events.append(
            AlertFired(
                model=model,
                alert_id=name,
                severity=episode.severity,
                summary=summary,
                episode_id=episode.episode_id,
                degraded_since=episode.since,
            )
        )
    return events


def _came_back(episode: Episode, state: ModelState) -> str:
    better = state.better.get(episode.signal)
    if episode.open or better is None or better.version not in (episode.version, state.promoted):
        return ""
    return "recovered" if episode.is_back(better.mean, better.rows) else ""


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"


def _closed(event: DriftClosed, state: ModelState) -> ModelState:
    if event.episode_id not in state.episodes:
        if not _is_newest(event, state):
            return state
        if event.reason == "settled":
            return _better(event, event.after_mean, state)
        better = {signal: one for signal, one in state.better.items() if signal != event.signal}
        return msgspec.structs.replace(state, better=better)
    known = state.episodes[event.episode_id]
    recovered = event.reason == "recovered"
    rows = max(known.labelled_rows, event.labelled_rows)
    changes: dict[str, object] = {"open": False, "closed": event.reason, "labelled_rows": rows}
    state = _with(state, event.episode_id, **changes, **({} if recovered else {"after": event.after_mean}))
    return _clear(state, event.episode_id, "recovered", lambda one: one.is_near(event.after_mean)) if recovered else state


def _finished(event: JobFinished, state: ModelState) -> ModelState:
    """Note what a job that was judged says of the level that serves now."""
    if event.job_id in state.ended:
        return state
    promoted = event.outcome == "promoted"
    if event.outcome in ("promoted", "proposed") and event.version is not None:
        # Of a proposed one nothing is heard as the champion unless a person approves of it.
        state = msgspec.structs.replace(state, promoted=event.version)
    verdict, episode_id = event.verdict, event.job_id.rpartition("-")[0]
    if verdict is None or verdict.metric not in ERROR_OF or episode_id not in state.episodes:
        return state
    if not promoted and event.arm != KEPT_ARM:
        return state
    error = ERROR_OF[verdict.metric](verdict.candidate if promoted else verdict.champion)
    why = "is back at its level: " + (
        f"version {event.version} was promoted" if promoted else "the champion does as well as before"
    )
    return _clear(state, episode_id, why, lambda one: one.signal == "error" and one.is_back(error, verdict.rows))


def _clear(state: ModelState, episode_id: str, why: str, is_over: Callable[[Episode], bool]) -> ModelState:
    """Let the alert of an episode end, and with it those of earlier ones of its signal, where they are over too."""
    last = state.episodes[episode_id]
    for episode in list(state.episodes.values()):
        is_last = episode.episode_id == episode_id
        if episode.signal == last.signal and not episode.cleared and (is_over(episode) or (is_last and last.closed == "recovered")):
            state = _with(state, episode.episode_id, cleared=why)
        if is_last:
            break
    return state


def _better(event: DriftOpened | DriftUpdated | DriftClosed, mean: float, state: ModelState) -> ModelState:
    # What is no error has no labelled rows of its own; the alarm itself is its evidence.
    rows = event.labelled_rows if event.signal == "error" else ALARM_ROWS
    known = Better(episode_id=event.episode_id, version=event.version, mean=mean, rows=rows)
    return msgspec.structs.replace(state, better={**state.better, event.signal: known})


def _is_newest(event: DriftUpdated | DriftClosed, state: ModelState) -> bool:
    better = state.better.get(event.signal)
    return better is not None and better.episode_id == event.episode_id


def _with(state: ModelState, episode_id: str, **changes: object) -> ModelState:
    known = state.episodes.get(episode_id)
    if known is None:
        return state
    changed = msgspec.structs.replace(known, **changes)
    return state if changed == known else msgspec.structs.replace(state, episodes={**state.episodes, episode_id: changed})


def _ended(state: ModelState, job_id: str) -> ModelState:
    if job_id in state.ended:
        return state
    ended = (*state.ended, job_id)[-KEPT_ENDED_JOBS:]
    return msgspec.structs.replace(state, running=tuple(one for one in state.running if one != job_id), ended=ended)


def _bounded(episodes: dict[str, Episode]) -> dict[str, Episode]:
    """Drop the oldest closed and told episodes beyond the limit, then the oldest closed ones; open ones always stay."""
    for limit, spare in (
        (KEPT_EPISODES, [one for one in episodes.values() if not one.open and one.resolved]),
        (KEPT_UNRESOLVED, [one for one in episodes.values() if not one.open]),
    ):
        for one in spare[: max(0, len(episodes) - limit)]:
            episodes.pop(one.episode_id, None)
    return episodes
