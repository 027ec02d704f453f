"""Scores: what those of joined rows say of the classes. A single one is the chance of the second of two; what is no chance is left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .columns import CONTRARY, FIT, UNFIT, Floats, Ints

TOLERANCE = 0.01
TOLERANCE_PER_SCORE = 0.005
"""Chances that were rounded to two places, each by up to a half of one in a hundred, are chances still."""
CLEAR = 1e-6


def chances(given: NDArray[np.float32], output: Floats, binary: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int8] | None]:
    """Return the chances of the classes, NaN for rows whose scores are none, and how fit each row's scores are, None where all are.

    `given`: scores (n, width), NaN beyond those of a row. `output`: class indices. `binary`: of which rows a single score is the chance of
    the second class.
    """
    scores = given.astype(np.float64)
    count, width = scores.shape
    if not width or not count:
        return scores, None
    total, most = scores[:, 0].copy(), scores[:, 0].copy()
    for column in range(1, width):
        total += scores[:, column]
        np.maximum(most, scores[:, column], out=most)
    # NaN where a row has fewer scores than others, which is near nothing.
    if width == 1 or not (np.abs(total - 1.0) <= TOLERANCE + TOLERANCE_PER_SCORE * width).all() or scores.min() < -TOLERANCE:
        return _sorted_out(scores, output, binary)
    return scores, _judged(scores, output, most, None)


def _sorted_out(scores: Floats, output: Floats, binary: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int8] | None]:
    """Do the same where rows have single scores, fewer than others, or none that are chances."""
    gaps = np.isnan(scores)
    given = scores.shape[1] - gaps.sum(axis=1)
    single = (given == 1) & binary
    if single.any():
        scores = _doubled(scores, single)
        gaps = np.isnan(scores)
        given = scores.shape[1] - gaps.sum(axis=1)
    known = np.where(gaps, 0.0, scores)
    near = np.abs(known.sum(axis=1) - 1.0) <= TOLERANCE + TOLERANCE_PER_SCORE * given
    is_fit = near & (known.min(axis=1) >= -TOLERANCE) & (given > 1)
    fitness = _judged(scores, output, known.max(axis=1), is_fit)
    unfit = (given > 0) & ~is_fit
    if unfit.any():
        fitness = np.zeros(len(scores), np.int8) if fitness is None else fitness
        fitness[unfit] = UNFIT
        scores[unfit] = np.nan
    return scores, fitness


def _judged(scores: Floats, output: Floats, most: Floats, is_fit: NDArray[np.bool_] | None) -> NDArray[np.int8] | None:
    """Return which rows have their highest score at another class than the output, None where none has."""
    count, width = scores.shape
    inside = (output >= 0) & (output < width)
    at = np.where(inside, output, 0.0).astype(np.int64)
    # An output without a score of its own is named by none of them.
    contrary = ~(scores.ravel().take(np.arange(0, count * width, width) + at) >= most - CLEAR) | ~inside
    if is_fit is not None:
        contrary &= is_fit
    return np.where(contrary, CONTRARY, FIT).astype(np.int8) if contrary.any() else None


def _doubled(scores: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return scores of at least two columns, where the single one of the chosen rows is that of the second class."""
    if scores.shape[1] < 2:
        scores = np.column_stack((scores[:, 0], np.full(len(scores), np.nan)))
    rows: Ints = chosen.nonzero()[0]
    scores[rows, 1] = scores[rows, 0]
    scores[rows, 0] = 1.0 - scores[rows, 1]
    return scores
