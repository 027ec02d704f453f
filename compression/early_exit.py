"""Early exits: named rules that end a search before any arm trains, each by the level that was before the change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import ArtifactInvalid
from ..schemas.recipes import Exit
from ..schemas.verdicts import EarlyExit
from .job_context import JobContext

Results = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rules look at: held-out results of the champion and of an earlier version that beats it, and those before the change."""

    champion: Results
    recalled: Results | None
    before: Results
    confidence: float


def recall_reaches_level(standing: Standing) -> float | None:
    """Return the level that the earlier version reached, one standard error allowed; None where it did not."""
    results = standing.recalled
    if results is None:
        return None
    mean = float(results.mean())
    reached = mean >= float(standing.before.mean()) - float(results.std(ddof=1)) / math.sqrt(len(results))
    return mean if reached else None


def champion_reaches_level(standing: Standing) -> float | None:
    """Return the champion's level where no version beats it and it is not shown to be below; both are samples, with their errors."""
    if standing.recalled is not None or is_below(standing.champion, standing.before, standing.confidence):
        return None
    return float(standing.champion.mean())


def is_below(results: Results, before: Results, confidence: float) -> bool:
    """Say whether held-out results are shown to be below those before the change."""
    error = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in (results, before)))
    return float(before.mean() - results.mean()) > NormalDist().inv_cdf(0.5 + confidence / 2) * error


RULES: dict[Exit, Callable[[Standing], float | None]] = {
    "recall_reaches_level": recall_reaches_level,
    "champion_reaches_level": champion_reaches_level,
}


def early_exit(rules: tuple[Exit, ...], standing: Standing) -> EarlyExit | None:
    """Return the first rule that holds, with its figures."""
    for rule in rules:
        reached = RULES[rule](standing)
        if reached is not None:
            return EarlyExit(rule=rule, reached=reached, level=float(standing.before.mean()))
    return None


def level_before(context: JobContext, least_rows: int) -> Results | None:
    """Return the results of the best known version, the one that served among them, on the rows before the drift; None: too few."""
    old = context.data.old
    if old is None or len(old) < least_rows:
        return None
    known = []
    for version in (context.champion, *context.earlier):
        try:
            known.append(version.results(old))
        except ArtifactInvalid:
            continue
    return max(known, key=lambda results: float(results.mean()), default=None)
