"""The gate: champion and candidate on the same held-out rows; whatever is not shown to be better is rejected, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas.config import RepairConfig
from ..schemas.errors import JobError
from ..schemas.events import GateVerdict, Signature
from ..schemas.rows import Rows
from .runtime import Floats, Runner, latencies_s, outcomes

METRICS = {"classification": "accuracy", "regression": "negative_mae"}
_BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison: a `repair` must be better; a `compression` must be smaller, no slower, and lose next to nothing."""

    champion: bytes
    candidate: bytes
    signature: Signature
    holdout: Rows
    kind: Literal["repair", "compression"] = "repair"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What the verdict is made of; ratios are candidate / champion."""

    metrics: tuple[float, float]
    interval: tuple[float, float]
    churn: float
    size_ratio: float
    latency_ratio: float
    segment: tuple[str, float] | None

    @property
    def difference(self) -> float:
        """Return candidate - champion."""
        return self.metrics[1] - self.metrics[0]


def judge(trial: Trial, config: RepairConfig, timer: Callable[[], float]) -> GateVerdict:
    """Return the verdict on the candidate; `timer` gives seconds.

    Raises JobError for too few held-out rows, ArtifactInvalid for a model that does not load or run.
    """
    rows = trial.holdout
    if len(rows) < 2:
        raise JobError("error", f"held-out rows must be at least 2, got {len(rows)}")
    champion, candidate = (Runner(data, trial.signature) for data in (trial.champion, trial.candidate))
    scores = champion.scores(rows.features), candidate.scores(rows.features)
    task = trial.signature.task
    results = outcomes(scores[0], rows, task), outcomes(scores[1], rows, task)
    measured = Measured(
        metrics=(float(results[0].mean()), float(results[1].mean())),
        interval=paired_interval(results[1] - results[0], config.confidence, task),
        churn=_churn(scores, rows, task),
        size_ratio=candidate.size_bytes / champion.size_bytes,
        latency_ratio=_latency_ratio((champion, candidate), rows.features, timer),
        segment=_worst_segment(results, rows, config),
    )
    against = _repair_faults(measured, config) if trial.kind == "repair" else _compression_faults(measured, config)
    return GateVerdict(
        promoted=not against,
        reasons=tuple(against) if against else (_praise(measured, trial.kind),),
        metric=METRICS[task],
        candidate=measured.metrics[1],
        champion=measured.metrics[0],
        difference=measured.difference,
        interval=measured.interval,
        rows=len(rows),
        churn=measured.churn,
        size_bytes=candidate.size_bytes,
        champion_size_bytes=champion.size_bytes,
        latency_ratio=measured.latency_ratio,
        worst_segment=None if measured.segment is None else measured.segment[0],
        worst_segment_difference=None if measured.segment is None else measured.segment[1],
        notes=trial.notes,
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


def _latency_ratio(runners: tuple[Runner, Runner], features: Floats, timer: Callable[[], float]) -> float:
    logs = []
    for size in _BATCHES:
        champion_s, candidate_s = latencies_s(runners, np.resize(features, (size, features.shape[1])), timer)
        if champion_s > 0 and candidate_s > 0:
            logs.append(math.log(candidate_s / champion_s))
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def _worst_segment(
    results: tuple[NDArray[np.float64], NDArray[np.float64]], rows: Rows, config: RepairConfig
) -> tuple[str, float] | None:
    if rows.segments is None:
        return None
    names = np.array(["" if name is None else name for name in rows.segments])
    differences = results[1] - results[0]
    worst: tuple[str, float] | None = None
    for name in sorted(set(names.tolist()) - {""}):
        mine = differences[names == name]
        if len(mine) >= config.min_segment_rows and (worst is None or mine.mean() < worst[1]):
            worst = name, float(mine.mean())
    return worst


def _shared_faults(measured: Measured, config: RepairConfig) -> list[str]:
    faults = []
    if measured.segment is not None and measured.segment[1] < -config.worst_segment_loss:
        name, difference = measured.segment
        faults.append(f"segment {name!r} loses {-difference:.3f}, more than {config.worst_segment_loss:.3f}")
    return faults


def _repair_faults(measured: Measured, config: RepairConfig) -> list[str]:
    faults = []
    if not measured.interval[0] > 0:
        faults.append(f"not shown to be better than the champion: {_spread(measured)}")
    faults += _shared_faults(measured, config)
    if not measured.size_ratio <= config.max_size_ratio:
        faults.append(f"file is {measured.size_ratio:.2f} times the champion's, more than {config.max_size_ratio:.2f}")
    if not measured.latency_ratio <= config.max_latency_ratio:
        faults.append(f"takes {measured.latency_ratio:.2f} times as long, more than {config.max_latency_ratio:.2f}")
    return faults


def _compression_faults(measured: Measured, config: RepairConfig) -> list[str]:
    faults = []
    scale = 1.0 if measured.metrics[0] >= 0 else -measured.metrics[0]
    allowed = config.max_metric_loss * scale
    if not measured.interval[0] >= -allowed:
        faults.append(f"a loss of at most {allowed:.3g} is not shown on these rows: {_spread(measured)}")
    if not measured.churn <= config.max_churn:
        faults.append(f"answers {measured.churn:.1%} of the rows otherwise, more than {config.max_churn:.1%}")
    faults += _shared_faults(measured, config)
    if not measured.size_ratio < 1:
        faults.append(f"file is not smaller: {measured.size_ratio:.2f} times the champion's")
    if not measured.latency_ratio <= config.max_compressed_latency_ratio:
        faults.append(f"takes {measured.latency_ratio:.2f} times as long, more than {config.max_compressed_latency_ratio:.2f}")
    return faults


def _spread(measured: Measured) -> str:
    low, high = measured.interval
    return f"difference {measured.difference:+.4f}, interval [{low:+.4f}, {high:+.4f}]"


def _praise(measured: Measured, kind: str) -> str:
    if kind == "repair":
        return f"better than the champion: {measured.metrics[1]:.4f} against {measured.metrics[0]:.4f}, {_spread(measured)}"
    return f"{measured.size_ratio:.2f} times the size, {measured.latency_ratio:.2f} times the time, {_spread(measured)}"
