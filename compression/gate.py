"""The gate: champion and candidate on the same rows, which neither saw; whatever is not shown to be better is rejected, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import JobError
from ..schemas.events import Scalar
from ..schemas.recipes import GateRule
from ..schemas.rows import Rows
from ..schemas.verdicts import GateVerdict
from .crossing import Evidence
from .runtime import Floats, Runner, latencies_s, outcomes

METRICS = {"classification": "accuracy", "regression": "negative_mae"}
_BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison of two models of one signature on the same rows; `notes` go into the verdict.

    `evidence`: results of both on rows that are not held out, but that neither model nor choice had seen.
    """

    champion: Runner
    candidate: Runner
    holdout: Rows
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the verdict is made of; ratios are candidate / champion; segment and class are those that lose most.

    `interval` is on all rows that count, `newest` on the held-out ones alone. `slower_us`: by how much a call takes longer, at the
    batch size where it is most.
    """

    metrics: tuple[float, float]
    interval: tuple[float, float]
    newest: tuple[float, float]
    rows: int
    churn: float
    sizes: tuple[int, int]
    latency_ratio: float
    slower_us: float
    segment: tuple[str, float] | None
    label: tuple[Scalar, float] | None

    @property
    def size_ratio(self) -> float:
        """Return candidate / champion."""
        return self.sizes[1] / self.sizes[0]

    @property
    def difference(self) -> float:
        """Return candidate - champion."""
        return self.metrics[1] - self.metrics[0]


def judge(trial: Trial, rule: GateRule, timer: Callable[[], float]) -> GateVerdict:
    """Return the verdict on the candidate; `timer` gives seconds.

    Raises JobError for too few held-out rows, ArtifactInvalid for a model that does not run.
    """
    rows = trial.holdout
    if len(rows) < 2:
        raise JobError("error", f"held-out rows must be at least 2, got {len(rows)}")
    measured = _measure(trial, rule, timer)
    against = _faults(measured, rule)
    segment, label = measured.segment, measured.label
    return GateVerdict(
        promoted=not against,
        reasons=tuple(against) if against else (_praise(measured, rule),),
        metric=METRICS[trial.champion.signature.task],
        candidate=measured.metrics[1],
        champion=measured.metrics[0],
        difference=measured.difference,
        interval=measured.interval,
        rows=measured.rows,
        churn=measured.churn,
        size_bytes=trial.candidate.size_bytes,
        champion_size_bytes=trial.champion.size_bytes,
        latency_ratio=measured.latency_ratio,
        worst_segment=None if segment is None else segment[0],
        worst_segment_difference=None if segment is None else segment[1],
        worst_class=None if label is None else label[0],
        worst_class_difference=None if label is None else label[1],
        notes=trial.notes,
    )


def _measure(trial: Trial, rule: GateRule, timer: Callable[[], float]) -> Measured:
    rows, champion, candidate = trial.holdout, trial.champion, trial.candidate
    task = champion.signature.task
    scores = champion.scores(rows.features), candidate.scores(rows.features)
    results = outcomes(scores[0], rows, task), outcomes(scores[1], rows, task)
    newest = paired_interval(results[1] - results[0], rule.confidence, task)
    counted = rows
    if trial.evidence is not None:
        counted = trial.evidence.rows.followed_by(rows)
        before = trial.evidence.champion, trial.evidence.candidate
        results = np.concatenate([before[0], results[0]]), np.concatenate([before[1], results[1]])
    differences = results[1] - results[0]
    worst_class = None
    if task == "classification":
        found = _worst(differences, counted.labels, rule.min_class_rows)
        worst_class = None if found is None else (champion.signature.classes[int(found[0])], found[1])
    ratio, slower_us = _latency((champion, candidate), rows.features, timer)
    worst_segment = None
    if counted.segments is not None:
        segments = np.array(["" if name is None else name for name in counted.segments])
        named = segments != ""
        worst_segment = _worst(differences[named], segments[named], rule.min_segment_rows)
    return Measured(
        metrics=(float(results[0].mean()), float(results[1].mean())),
        interval=paired_interval(differences, rule.confidence, task),
        newest=newest,
        rows=len(counted),
        churn=_churn(scores, rows, task),
        sizes=(champion.size_bytes, candidate.size_bytes),
        latency_ratio=ratio,
        slower_us=slower_us,
        segment=worst_segment,
        label=worst_class,
    )


def paired_interval(differences: NDArray[np.float64], confidence: float, task: str) -> tuple[float, float]:
    """Return the interval of the mean of paired differences.

    Differences of right and wrong (-1, 0, 1) take Agresti and Min's adjustment (2005, half a row added
    to each of the four cells), since the plain normal interval finds three rows out of 75 convincing.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rows = len(differences)
    if task == "classification":
        better, worse = float((differences > 0).sum()) + 0.5, float((differences < 0).sum()) + 0.5
        mean = (better - worse) / (rows + 2)
        half = z * math.sqrt(max(0.0, better + worse - (better - worse) ** 2 / (rows + 2))) / (rows + 2)
    else:
        mean = float(differences.mean())
        half = z * float(differences.std(ddof=1)) / math.sqrt(rows) if rows > 1 else math.inf
    return mean - half, mean + half


def _churn(scores: tuple[Floats, Floats], rows: Rows, task: str) -> float:
    """Return the share of rows answered otherwise; a number counts as other from 1 % of the labels' spread."""
    champion, candidate = (np.nan_to_num(part) for part in scores)
    if task == "classification":
        return float((champion.argmax(axis=1) != candidate.argmax(axis=1)).mean())
    return float((np.abs(champion - candidate)[:, 0] > 0.01 * float(np.ptp(rows.labels))).mean())


def _latency(runners: tuple[Runner, Runner], features: Floats, timer: Callable[[], float]) -> tuple[float, float]:
    """Return the mean ratio over the batch sizes, candidate / champion, and the largest growth in microseconds."""
    logs = []
    slower_us = -math.inf
    for size in _BATCHES:
        champion_s, candidate_s = latencies_s(runners, np.resize(features, (size, features.shape[1])), timer)
        if champion_s > 0 and candidate_s > 0:
            logs.append(math.log(candidate_s / champion_s))
            slower_us = max(slower_us, 1e6 * (candidate_s - champion_s))
    return (math.exp(sum(logs) / len(logs)), slower_us) if logs else (1.0, 0.0)


def fits_size(sizes: tuple[int, int], rule: GateRule) -> bool:
    """Say whether the sizes of champion and candidate, in bytes, keep the rule's bounds."""
    if rule.max_size_ratio is None or 0 < sizes[1] - sizes[0] <= rule.size_slack_bytes:
        return True
    return sizes[1] < rule.max_size_ratio * sizes[0]


def _worst(differences: NDArray[np.float64], groups: NDArray[Any], least_rows: int) -> tuple[Any, float] | None:
    """Return the group of at least so many rows that loses most, and its mean difference."""
    found: tuple[Any, float] | None = None
    for group in np.unique(groups):
        mine = differences[groups == group]
        if len(mine) >= least_rows and (found is None or mine.mean() < found[1]):
            found = group.item(), float(mine.mean())
    return found


def _faults(measured: Measured, rule: GateRule) -> list[str]:
    """Return what stands against the candidate, nothing where the rule is met."""
    faults = []
    if rule.min_gain is not None and not measured.interval[0] > rule.min_gain:
        more = f" by more than {rule.min_gain:.3g}" if rule.min_gain else ""
        faults.append(f"not shown to be better than the champion{more}: {_spread(measured)}")
    if rule.min_gain is not None and measured.newest[1] < 0:
        low, high = measured.newest
        faults.append(f"worse than the champion on the newest rows: interval [{low:+.4f}, {high:+.4f}]")
    if rule.max_loss is not None:
        allowed = rule.max_loss * (1.0 if measured.metrics[0] >= 0 else -measured.metrics[0])
        if not measured.interval[0] >= -allowed:
            faults.append(f"a loss of at most {allowed:.3g} is not shown on these rows: {_spread(measured)}")
    if rule.max_churn is not None and not measured.churn <= rule.max_churn:
        faults.append(f"answers {measured.churn:.1%} of the rows otherwise, more than {rule.max_churn:.1%}")
    for what, worst, allowed_loss in (
        ("segment", measured.segment, rule.max_segment_loss),
        ("class", measured.label, rule.max_class_loss),
    ):
        if worst is not None and allowed_loss is not None and worst[1] < -allowed_loss:
            faults.append(f"{what} {worst[0]!r} loses {-worst[1]:.3f}, more than {allowed_loss:.3f}")
    if rule.max_size_ratio is not None and not fits_size(measured.sizes, rule):
        faults.append(f"file is {measured.size_ratio:.2f} times the champion's, not below {rule.max_size_ratio:.2f}")
    if (
        rule.max_latency_ratio is not None
        and not measured.latency_ratio <= rule.max_latency_ratio
        and not 0 < measured.slower_us <= rule.latency_slack_us
    ):
        faults.append(f"takes {measured.latency_ratio:.2f} times as long, more than {rule.max_latency_ratio:.2f}")
    return faults


def _spread(measured: Measured) -> str:
    low, high = measured.interval
    return f"difference {measured.difference:+.4f}, interval [{low:+.4f}, {high:+.4f}]"


def _praise(measured: Measured, rule: GateRule) -> str:
    if rule.min_gain is not None:
        return f"better than the champion: {measured.metrics[1]:.4f} against {measured.metrics[0]:.4f}, {_spread(measured)}"
    return f"{measured.size_ratio:.2f} times the size, {measured.latency_ratio:.2f} times the time, {_spread(measured)}"
