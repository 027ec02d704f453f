"""Turn what a demo saw into its one JSON object, and into tables for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.events import (
    DriftOpened,
    DriftUpdated,
    JobFailed,
    JobFinished,
    JobRequested,
    ModelPromoted,
    ModelRolledBack,
    Position,
    Task,
)
from .demo_story import Story
from .demo_tally import Tally
from .player import Score
from .plot import binned

TABLE_BIN_ROWS = 1_000
MEASURES: dict[Task, str] = {"classification": "accuracy", "regression": "mae"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo ended with; `measure` names what the score holds."""

    story: Story
    score: Score
    tally: Tally
    transport: str
    wall_s: float
    measure: str = "accuracy"


def report(outcome: Outcome) -> dict[str, Any]:
    """Return the object that `driftloop demo --json` prints."""
    score, tally = outcome.score, outcome.tally
    rows, frozen = binned(score.frozen, score.first_row, TABLE_BIN_ROWS)
    _, adapted = binned(score.adapted, score.first_row, TABLE_BIN_ROWS)
    events = tally.predictions + tally.labels
    return {
        "events": {
            "predictions": tally.predictions,
            "labels": tally.labels,
            "joined": tally.joined,
            "dead_lettered": tally.dead_lettered,
            "lost": tally.lost,
            "duplicated": tally.duplicated,
        },
        "drift": drift_rows(outcome),
        "jobs": job_rows(outcome.story),
        "models": model_rows(outcome),
        outcome.measure: levels(outcome),
        f"{outcome.measure}_by_1000": {"rows": rows, "frozen": _rounded(frozen), "adapted": _rounded(adapted)},
        "timing": {
            "drift_to_publish_s": drift_to_publish_s(outcome.story),
            "events_per_s": round(events / score.played_s, 1) if score.played_s else None,
            "wall_s": round(outcome.wall_s, 2),
        },
        "transport": outcome.transport,
    }


def row_of(score: Score) -> Callable[[Position], int]:
    """Return the function from a position to its row: in a fresh topic with one model, offsets count what was sent."""
    return lambda position: score.first_row + position.offset


def drift_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one object an episode, in the order found."""
    row = row_of(outcome.score)
    return [
        {
            "episode_id": event.episode_id,
            "signal": event.signal,
            "detector": event.detector,
            "direction": event.direction,
            "severity": event.severity,
            "detected_row": row(event.detected_at),
            "change_row": row(event.change_point),
        }
        for event in outcome.story.of(DriftOpened)
    ]


def job_rows(story: Story) -> list[dict[str, Any]]:
    """Return one object a job that was asked for, in the order asked."""
    ends: dict[str, JobFinished | JobFailed] = {event.job_id: event for event in story.of(JobFailed)}
    ends |= {event.job_id: event for event in story.of(JobFinished)}
    found = []
    for asked in {event.job_id: event for event in story.of(JobRequested)}.values():
        told: dict[str, Any] = {"job_id": asked.job_id, "recipe": asked.recipe, "outcome": "unfinished", "reasons": []}
        told |= {"duration_s": None, "arm": None, "episode_id": asked.episode_id}
        end = ends.get(asked.job_id)
        if isinstance(end, JobFinished):
            told |= {"outcome": end.outcome, "reasons": list(end.reasons), "duration_s": round(end.duration_s, 3), "arm": end.arm}
        elif isinstance(end, JobFailed):
            told |= {"outcome": "failed", "reasons": [f"{end.cause}: {end.message}"], "duration_s": round(end.duration_s, 3)}
        found.append(told)
    return found


def model_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one object a promotion; `promoted_at_row` is the first row that the version served, null if it never did."""
    registered = outcome.story.registered()
    served = list(outcome.score.swaps)
    found: list[dict[str, Any]] = []
    for told in outcome.story.told:
        event = told.event
        if not isinstance(event, ModelPromoted | ModelRolledBack):
            continue
        at = next((place for place, (_, version) in enumerate(served) if version == event.version), None)
        first_row = None if at is None else served[at][0]
        served = served if at is None else served[at + 1 :]
        source = registered.get(event.version)
        metric = event.metric if isinstance(event, ModelPromoted) else None
        if metric is None and source is not None:
            metric = source.metric
        size_bytes = None if source is None else source.size_bytes
        found.append({"version": event.version, "digest": event.digest, "promoted_at_row": first_row} | {"size_bytes": size_bytes})
        found[-1]["metric"] = metric
    return found


def first_change(outcome: Outcome) -> int | None:
    """Return the change row of the first episode in which the error got worse."""
    errors = [found for found in drift_rows(outcome) if found["signal"] == "error" and found["direction"] == "worse"]
    return min((found["change_row"] for found in errors), default=None)


def levels(outcome: Outcome) -> dict[str, float | None]:
    """Return the measure before the first change for the worse, and from it to the end with and without repairs."""
    score = outcome.score
    change = first_change(outcome)
    cut = len(score.adapted) if change is None else min(max(change - score.first_row, 0), len(score.adapted))
    return {
        "before_drift": _mean(score.adapted[:cut]),
        "frozen_after": _mean(score.frozen[cut:]),
        "adapted_after": _mean(score.adapted[cut:]),
    }


def drift_to_publish_s(story: Story) -> float | None:
    """Return the longest time from the drift record that started a job to the record of its model's promotion."""
    asked = {event.job_id: event for event in story.of(JobRequested)}
    longest: float | None = None
    for published in story.told:
        job = asked.get(published.event.job_id or "") if isinstance(published.event, ModelPromoted) else None
        if job is None:
            continue
        causes = [
            told.timestamp_ms
            for told in story.told
            if isinstance(told.event, DriftOpened | DriftUpdated)
            and told.event.episode_id == job.episode_id
            and told.event.labelled_rows >= job.labelled_rows
        ]
        if causes:
            took = round((published.timestamp_ms - min(causes)) / 1000, 3)
            longest = took if longest is None else max(longest, took)
    return longest


def _mean(found: NDArray[np.float64]) -> float | None:
    return round(float(found.mean()), 4) if len(found) else None


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]
