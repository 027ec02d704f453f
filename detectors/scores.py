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
    width = scores.shape[1]
    if not width or not len(scores):
        return scores, None
    single = ~np.isnan(scores[:, 0])
    scored = single.copy()
    if width > 1:
        single &= np.isnan(scores[:, 1])
    if single.any():
        scores, width = _doubled(scores, single & binary), max(width, 2)
    total, least, most = scores[:, 0].copy(), scores[:, 0].copy(), scores[:, 0].copy()
    count: Floats | int = width
    if np.isnan(scores.sum()):
        count = width - np.isnan(scores).sum(axis=1).astype(np.float64)
    for column in range(1, width):
        one = scores[:, column]
        total += one if isinstance(count, int) else np.nan_to_num(one)
        np.fmin(least, one, out=least)
        np.fmax(most, one, out=most)
    # What a row without scores has is NaN, which is not near 1.
    is_fit = (least >= -TOLERANCE) & (np.abs(total - 1.0) <= TOLERANCE + TOLERANCE_PER_SCORE * count) & (count > 1)
    inside = (output >= 0) & (output < width)
    mine = scores[np.arange(len(scores)), np.where(inside, output, 0.0).astype(np.int64)]
    # An output without a score of its own is named by none of them.
    contrary = is_fit & ~(inside & (mine >= most - CLEAR))
    fitness = np.where(scored & ~is_fit, UNFIT, np.where(contrary, CONTRARY, FIT)).astype(np.int8)
    if not fitness.any():
        return scores, None
    scores[fitness == UNFIT] = np.nan
    return scores, fitness


def _doubled(scores: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return scores of at least two columns, where the single one of the chosen rows is that of the second class."""
    if scores.shape[1] < 2:
        scores = np.column_stack((scores[:, 0], np.full(len(scores), np.nan)))
    rows: Ints = chosen.nonzero()[0]
    scores[rows, 1] = scores[rows, 0]
    scores[rows, 0] = 1.0 - scores[rows, 1]
    return scores
