"""ROC AUC from score histograms whose bins are finest near 0 and 1, where the scores of sure models lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .columns import Floats, Ints

BINS = 512
HALF = BINS // 2
_MANTISSA_BITS = 18
_HALF_BITS = int(np.float32(0.5).view(np.int32)) >> _MANTISSA_BITS
_FINE = 64


def score_bins(scores: Floats) -> Ints:
    """Return the bin of each score, rising with the score: 32 to an octave of min(s, 1 - s) above 1/8, 8 to an octave down to 2^-27.

    The bin follows from the bits of the number, so that every machine agrees; scores beyond [0, 1] count as 0 or 1.
    """
    inside = np.minimum(np.maximum(scores, 0.0), 1.0)
    low = inside < 0.5
    near = np.where(low, inside, 1.0 - inside).astype(np.float32)
    far = _HALF_BITS - (near.view(np.int32) >> _MANTISSA_BITS)
    far = np.where(far < _FINE, far, _FINE + (far - _FINE) // 4)
    far = np.clip(far, 0, HALF - 1).astype(np.int64)
    found: Ints = np.where(low, HALF - 1 - far, HALF + far)
    return found


def area(negatives: NDArray[np.integer], positives: NDArray[np.integer]) -> float | None:
    """Return the probability that a positive scores above a negative, ties half; None where either is missing."""
    negative, positive = negatives.astype(np.float64), positives.astype(np.float64)
    pairs = negative.sum() * positive.sum()
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / pairs)
