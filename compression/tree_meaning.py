"""What the sums of a tree ensemble mean: how the model's scores follow from them, found by trying, and the loss that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..schemas.errors import ModelUnsupported
from .ml_attributes import Numbers
from .tree_ensemble import logistic, softmax

LossName = Literal["logistic", "softmax", "squared", "share"]
AGREEMENT = 1e-4
"""How far scores may lie from what a form says: float32 sums of thousands of trees stay within it, other forms do not."""


@dataclass(frozen=True, slots=True)
class Slopes:
    """The slope of the loss by each sum and its own slope, both (n, k)."""

    first: Numbers
    second: Numbers


@dataclass(frozen=True, slots=True)
class Meaning:
    """A form in which scores follow from sums (n, k): `scores` computes it, `targets` (n, k) are what the sums are compared with.

    `loss`: `share` where each tree alone gives the answer and the sums are the trees' mean, as in a random forest. `chances`: those of
    classes, so that no constant may be added.
    """

    loss: LossName
    scores: Callable[[Numbers], Numbers]
    targets: Numbers
    chances: bool


def classes_meaning(sums: Numbers, scores: Numbers, labels: Numbers) -> Meaning:
    """Return what sums (n, k) mean to class scores (n, c), for class indices (n,); raises ModelUnsupported where no form fits."""
    hits = np.zeros(scores.shape)
    hits[np.arange(len(labels)), labels.astype(np.int64)] = 1.0
    forms = ONE_SUM if sums.shape[1] == 1 and scores.shape[1] == 2 else EACH_SUM if sums.shape[1] == scores.shape[1] else ()
    for loss, form in forms:
        if loss == "share" and not _are_shares(sums):
            continue
        if _agree(form(sums), scores):
            return Meaning(loss, form, hits[:, 1:] if sums.shape[1] == 1 else hits, chances=True)
    raise _unknown("the logistic function or softmax of the trees' sums, or the sums themselves")


def number_meaning(sums: Numbers, scores: Numbers, labels: Numbers) -> Meaning:
    """Return what sums (n, 1) mean to predicted numbers (n, 1), for labels (n,); raises ModelUnsupported where they lie on no line."""
    if sums.shape[1] != 1:
        raise _unknown("one sum for each row")
    low, high = sums.argmin(), sums.argmax()
    spread = float(sums[high, 0] - sums[low, 0])
    slope = float(scores[high, 0] - scores[low, 0]) / spread if spread > 0 else 1.0
    intercept = float(scores[low, 0]) - slope * float(sums[low, 0])

    def line(numbers: Numbers) -> Numbers:
        return slope * numbers + intercept

    if slope == 0 or not _agree(line(sums), scores):
        raise _unknown("a line of the trees' sums")
    return Meaning("squared", line, ((labels - intercept) / slope)[:, None], chances=False)


def as_shares(meaning: Meaning) -> Meaning:
    """Return the meaning for trees each of which alone gives the answer."""
    return replace(meaning, loss="share")


def best_constants(meaning: Meaning) -> Numbers:
    """Return the sums (k,) that answer all rows alike at the least loss, chances held off 0 and 1 by half a row."""
    mean = meaning.targets.mean(axis=0)
    if meaning.loss == "squared":
        return np.asarray(mean)
    count = len(meaning.targets)
    chance = (mean * count + 0.5) / (count + 1)
    logs = np.log(chance) - np.log1p(-chance) if meaning.loss == "logistic" else np.log(chance)
    return np.asarray(logs)


def slopes(loss: LossName, sums: Numbers, targets: Numbers) -> Slopes:
    """Return first and second slopes of a loss that trees are boosted by."""
    if loss == "squared":
        return Slopes(sums - targets, np.ones_like(sums))
    if loss == "logistic":
        chances = logistic(sums)
        return Slopes(chances - targets, chances * (1 - chances))
    chances = softmax(sums)
    # The sums of a row move together: c / (c - 1) makes up for what a diagonal leaves out (Friedman, 2001).
    return Slopes(chances - targets, sums.shape[1] / (sums.shape[1] - 1) * chances * (1 - chances))


def _pair(numbers: Numbers) -> Numbers:
    return np.hstack([-numbers, numbers])


def _shares_of_two(numbers: Numbers) -> Numbers:
    return np.hstack([1 - numbers, numbers])


def _same(numbers: Numbers) -> Numbers:
    return numbers


def _logistic_of_two(numbers: Numbers) -> Numbers:
    return logistic(_pair(numbers))


Form = tuple[LossName, Callable[[Numbers], Numbers]]
# The first that fits is taken; scores that are the sums themselves are log-odds unless they are shares.
ONE_SUM: tuple[Form, ...] = (("logistic", _logistic_of_two), ("share", _shares_of_two), ("logistic", _pair))
EACH_SUM: tuple[Form, ...] = (("softmax", softmax), ("logistic", logistic), ("share", _same), ("softmax", _same))


def _are_shares(sums: Numbers) -> bool:
    whole = sums.shape[1] == 1 or bool((np.abs(sums.sum(axis=1) - 1) <= AGREEMENT).all())
    return whole and bool(((sums >= -AGREEMENT) & (sums <= 1 + AGREEMENT)).all())


def _agree(said: Numbers, scores: Numbers) -> bool:
    return bool((np.abs(said - scores) <= AGREEMENT * np.maximum(1.0, np.abs(scores))).all())


def _unknown(wanted: str) -> ModelUnsupported:
    return ModelUnsupported(
        f"scores of the model must be {wanted} (use another step, such as affine, which needs the scores alone)"
    )
