"""Where a mean changed: the split of a history of block means that best explains them as two levels (Hinkley 1970)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .columns import Floats


@dataclass(frozen=True, slots=True)
class Split:
    """Say that block `at` is the first after the change; `gain` is the drop of squared error in units of the values squared."""

    at: int
    before: float
    after: float
    gain: float


def best_split(means: Floats, weights: Floats) -> Split | None:
    """Return the split of n blocks with the largest likelihood, or None for fewer than two blocks that hold rows.

    `means`: (n,), ignored where the weight is 0. `weights`: (n,), rows behind each mean.
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
    return Split(int(held[best + 1]), float(left[best]), float(right[best]), float(gain[best]))
