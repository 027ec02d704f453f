"""Decide when a drift episode starts a repair and when it alerts: pure, and safe to run twice over the same events.

The state is what the topics say; what is due follows from the state alone. So a control plane that lost its memory folds the topics
again, asks for what is due, and neither forgets a job nor asks for one twice: a request carries the same id each time.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

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
KEPT_ENDED_JOBS = 256


class Episode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Be what the policy knows of one episode that makes a model worse; `asked` maps the milestones asked for to rows known then."""

    episode_id: str
    version: int
    signal: str
    severity: Severity
    rows: RowRange
    labelled_rows: int
    effect: float = 0.0
    open: bool = True
    asked: dict[int, int] = msgspec.field(default_factory=dict)
    alerted: bool = False
    resolved: bool = False


class ModelState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Be the policy's memory of one model: episodes by id, jobs that wait or run, the newest jobs that ended."""

    episodes: dict[str, Episode] = msgspec.field(default_factory=dict)
    running: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


class Policy:
    """Turn drift and job events into requests and alerts; events of other kinds change nothing."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config

    def fold(self, event: Event, state: ModelState) -> ModelState:
        """Return the state after `event`; folding an event again changes nothing."""
        match event:
            case DriftOpened():
                return self._opened(event, state)
            case DriftUpdated():
                return self._updated(event, state)
            case DriftClosed():
                return _with(state, event.episode_id, open=False)
            case JobRequested():
                return self._asked(event, state)
            case JobFinished() | JobFailed() | JobCancelled():
                return _ended(state, event.job_id)
            case AlertFired() if event.episode_id is not None:
                return _with(state, event.episode_id, alerted=True)
            case AlertResolved():
                return _with(state, event.alert_id.removeprefix("drift-"), alerted=True, resolved=True)
        return state

    def due(self, model: str, state: ModelState) -> tuple[list[Event], ModelState]:
        """Return requests and alerts that are due for `model`, and the state in which they are sent."""
        events: list[Event] = []
        for episode in list(state.episodes.values()):
            events += _alerts(model, episode)
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
        if event.direction != "worse":
            return state
        known = state.episodes.get(event.episode_id)
        if known is not None:
            return state
        episode = Episode(
            episode_id=event.episode_id,
            version=event.version,
            signal=event.signal,
            severity=event.severity,
            rows=event.rows,
            labelled_rows=event.labelled_rows,
            effect=event.effect,
        )
        return msgspec.structs.replace(state, episodes=_bounded({**state.episodes, episode.episode_id: episode}))

    def _updated(self, event: DriftUpdated, state: ModelState) -> ModelState:
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
                )
        return None

    def _milestone(self, episode: Episode) -> int | None:
        """Return the highest milestone that is reached and not asked for; a lower one would train on the same rows."""
        config = self.config
        if not episode.open or episode.signal not in config.signals or len(episode.asked) >= config.max_jobs_per_episode:
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


def _alerts(model: str, episode: Episode) -> list[Event]:
    events: list[Event] = []
    name = alert_id(episode.episode_id)
    if not episode.alerted:
        summary = (
            f"{model} version {episode.version}: {episode.signal} became worse by {abs(episode.effect):.2f} standard deviations"
            f" ({episode.labelled_rows} labelled rows since the change)"
        )
        events.append(
            AlertFired(model=model, alert_id=name, severity=episode.severity, summary=summary, episode_id=episode.episode_id)
        )
    if not episode.open and not episode.resolved:
        events.append(AlertResolved(model=model, alert_id=name, summary=f"{model}: the {episode.signal} episode is closed"))
    return events


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
    """Drop the oldest closed and told episodes beyond the limit; open ones always stay."""
    spare = [one.episode_id for one in episodes.values() if not one.open and one.resolved]
    for episode_id in spare[: max(0, len(episodes) - KEPT_EPISODES)]:
        del episodes[episode_id]
    return episodes
