"""The frozen baseline of a signal: level, spread, and how long a block must be so that block means are nearly independent.

A block of independent rows has sd / sqrt(rows); rows that follow each other (lag-1 correlation r) carry (1 + r) / (1 - r) times less,
and ADWIN on such rows alarms hundreds of times per 100,000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .columns import Floats

ROBUST_SD = 4.0
MAD_TO_SD = 1.4826
MIN_VALUES = 20
BLOCK_PER_CORRELATION_ROWS = 8.0
MAX_CORRELATION = 0.995
# Squares of larger numbers, added up, leave float64.
MAX_VALUE = 1e100


@dataclass(frozen=True, slots=True)
class Baseline:
    """A frozen level: z = clip((x - center) / scale), mean and sd of a row in z, and `correlation_rows`, (1 + r) / (1 - r)."""

    center: float
    scale: float
    mean: float
    row_sd: float
    correlation_rows: float

    def state(self) -> tuple[float, ...]:
        """Return the fields in order."""
        return self.center, self.scale, self.mean, self.row_sd, self.correlation_rows

    def transform(self, values: Floats, clip: float) -> Floats:
        """Return z of raw values, NaN where missing."""
        with np.errstate(over="ignore"):
            return np.minimum(np.maximum((values - self.center) * (1.0 / self.scale), -clip), clip)

    def raw(self, z: float) -> float:
        """Return the raw value of a mean in z."""
        return self.center + self.scale * z

    def block_sd(self, rows: int) -> float:
        """Return the standard deviation of the mean of a block."""
        return self.row_sd * math.sqrt(min(self.correlation_rows, rows) / rows)


def of_shares(values: Floats) -> Baseline | None:
    """Return the baseline of a signal of 0 and 1, never certain of 0 or 1; None with too few values."""
    values = values[~np.isnan(values)]
    if len(values) < MIN_VALUES:
        return None
    ones = float(np.clip(values, 0.0, 1.0).sum())
    share = (ones + 2.0) / (len(values) + 4.0)
    return Baseline(0.0, 1.0, ones / len(values), math.sqrt(share * (1.0 - share)), correlation_rows(values))


def of_numbers(values: Floats, clip: float) -> Baseline | None:
    """Return the baseline of a signal of numbers, which outliers do not widen; None with too few values.

    Mean and sd are those of z clipped at `clip`, as later rows will be: a skewed signal's clipped tail would else pull every block
    to one side of a level that was measured without it.
    """
    values = values[~np.isnan(values)]
    if len(values) < MIN_VALUES:
        return None
    values = np.clip(values, -MAX_VALUE, MAX_VALUE)
    median = float(_medians(values))
    spread = float(_medians(np.abs(values - median))) * MAD_TO_SD
    kept = values
    if spread > 0.0:
        # Skewed values have long honest tails: the limits are wide, and only what lies far beyond is drawn in.
        limit = 2.0 * ROBUST_SD * spread
        kept = np.minimum(np.maximum(values, median - limit), median + limit)
    center, scale = float(kept.mean()), float(kept.std())
    if not scale > _floor(center):
        return _of_constant(center)
    z = np.minimum(np.maximum((values - center) * (1.0 / scale), -clip), clip)
    return Baseline(center, scale, float(z.mean()), float(z.std()), correlation_rows(z))


def of_number_columns(values: Floats, clip: float) -> list[Baseline | None]:
    """Return what `of_numbers` says of every column of (rows, columns), bit for bit, with a few calls for all."""
    # Rows of the transposed copy are contiguous, so that numpy adds them up just as it adds up one column alone.
    columns = np.ascontiguousarray(values.T)
    whole = np.flatnonzero(~np.isnan(columns).any(axis=1))
    found: list[Baseline | None] = [None] * len(columns)
    for at in sorted(set(range(len(columns))) - set(whole.tolist())):
        found[at] = of_numbers(columns[at], clip)
    if len(whole) and columns.shape[1] >= MIN_VALUES:
        for at, one in zip(whole.tolist(), _of_whole(columns[whole], clip), strict=True):
            found[at] = one
    return found


def _of_whole(columns: Floats, clip: float) -> list[Baseline]:
    columns = np.clip(columns, -MAX_VALUE, MAX_VALUE)
    median = _medians(columns)[:, None]
    spread = _medians(np.abs(columns - median))[:, None] * MAD_TO_SD
    limit = np.where(spread > 0.0, 2.0 * ROBUST_SD * spread, np.inf)
    kept = np.minimum(np.maximum(columns, median - limit), median + limit)
    centers, scales = kept.mean(axis=1), kept.std(axis=1)
    moves = [scale > _floor(center) for center, scale in zip(centers.tolist(), scales.tolist(), strict=True)]
    factors = np.divide(1.0, scales, out=np.ones_like(scales), where=np.array(moves, np.bool_))
    z = np.minimum(np.maximum((columns - centers[:, None]) * factors[:, None], -clip), clip)
    means, sds, correlations = z.mean(axis=1).tolist(), z.std(axis=1).tolist(), _correlations(z)
    found = zip(moves, centers.tolist(), scales.tolist(), means, sds, correlations, strict=True)
    return [Baseline(*one) if moved else _of_constant(one[0]) for moved, *one in found]


def _medians(values: Floats) -> Floats:
    """Return the medians over the last axis of values without a gap; a sort of so few is faster than the partition of `np.median`."""
    ordered, half = np.sort(values, axis=-1), values.shape[-1] // 2
    medians: Floats = ordered[..., half] if values.shape[-1] % 2 else (ordered[..., half - 1] + ordered[..., half]) / 2.0
    return medians


def _floor(center: float) -> float:
    """Return the spread below which a signal counts as constant."""
    return max(abs(center) * 1e-6, 1e-12)


def _of_constant(center: float) -> Baseline:
    # Anything else is a move, but a rare single one is not yet a change.
    return Baseline(center, max(abs(center) * 1e-3, 1e-9), 0.0, 1.0, 1.0)


def _correlations(columns: Floats) -> list[float]:
    centred = columns - columns.mean(axis=1)[:, None]
    powers = (centred * centred).sum(axis=1).tolist()
    products = (centred[:, 1:] * centred[:, :-1]).sum(axis=1).tolist()
    return [_correlation_rows(*one, columns.shape[1]) for one in zip(powers, products, strict=True)]


def correlation_rows(values: Floats) -> float:
    """Return (1 + r) / (1 - r) of the lag-1 correlation r, 1 where r is within its own noise."""
    centred = values - values.mean()
    return _correlation_rows(float((centred * centred).sum()), float((centred[1:] * centred[:-1]).sum()), len(values))


def _correlation_rows(power: float, product: float, rows: int) -> float:
    if power <= 0.0:
        return 1.0
    lag_1 = product / power
    if lag_1 < 2.0 / math.sqrt(rows):
        return 1.0
    lag_1 = min(lag_1 + 1.0 / rows, MAX_CORRELATION)
    return (1.0 + lag_1) / (1.0 - lag_1)


def block_rows(correlation: float, least: int, most: int, warm_up: float = math.inf) -> int:
    """Return the length of a block, a power of two times `least`, at which the means of neighbouring blocks hardly correlate.

    Where a signal remembers longer than the warm-up it is one that fits in there: evidence for a change is weighed by correlation
    anyway, and the signals beside it in the lane keep a clock that is of use.
    """
    rows = least
    while rows < min(most, BLOCK_PER_CORRELATION_ROWS * correlation) and 2 * rows <= warm_up:
        rows *= 2
    return min(rows, most) if most >= least else least
