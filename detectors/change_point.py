"""Where a mean changed: the split of a history of block means that best explains them as two levels (Hinkley 1970)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .columns import Floats


@dataclass(frozen=True, slots=True)
class Split:
    """Two levels: block `at` is the first after the change, `latest` the latest that may well be.

    `gain` is the drop of squared error that the split explains, in units of the values squared; rows as weighted.
    """

    at: int
    latest: int
    before: float
    after: float
    gain: float
    rows_before: float
    rows_after: float

    def evidence(self, variance: float) -> float:
        """Return twice the log likelihood ratio of two levels against one, for rows of this variance."""
        return self.gain / variance

    def evidence_of_shares(self) -> float:
        """Return the same for rows of 0 and 1, whose variance is not that of the baseline once the level moved."""
        rows = self.rows_before + self.rows_after
        before, after = min(max(self.before, 0.0), 1.0), min(max(self.after, 0.0), 1.0)
        pooled = (before * self.rows_before + after * self.rows_after) / rows
        return 2.0 * (self.rows_before * divergence(before, pooled) + self.rows_after * divergence(after, pooled))


TOLERATED_VARIANCES = 4.0


def best_split(means: Floats, weights: Floats, variance: float) -> Split | None:
    """Return the split of n blocks with the largest likelihood, or None for fewer than two blocks that hold rows.

    `means`: (n,), ignored where the weight is 0. `weights`: (n,), rows behind each mean. `variance`: of one row; splits that explain
    up to four of it less than the best may well be the true one (twice the log likelihood, as in a 95 % interval).
    """
    held = np.flatnonzero(weights > 0)
    if len(held) < 2:
        return None
    weight, mean = weights[held], means[held]
    left_weight = np.cumsum(weight)[:-1]
    sums = np.cumsum(weight * mean)
    total, total_weight = sums[-1], left_weight[-1] + weight[-1]
    left = sums[:-1] / left_weight
    right = (total - sums[:-1]) / (total_weight - left_weight)
    gain = left_weight * (total_weight - left_weight) / total_weight * (left - right) ** 2
    best = int(np.argmax(gain))
    latest = int(np.flatnonzero(gain >= gain[best] - TOLERATED_VARIANCES * variance)[-1])
    levels = (float(left[best]), float(right[best]), float(gain[best]))
    return Split(
        int(held[best + 1]), int(held[latest + 1]), *levels, float(left_weight[best]), float(total_weight - left_weight[best])
    )


def divergence(share: float, pooled: float) -> float:
    """Return the Kullback-Leibler divergence of two shares."""
    ones = share * math.log(share / pooled) if share > 0.0 and pooled > 0.0 else 0.0
    noughts = (1.0 - share) * math.log((1.0 - share) / (1.0 - pooled)) if share < 1.0 and pooled < 1.0 else 0.0
    return ones + noughts
