"""Recovery: whether newer rows show that a level is back where it was before a change, and not merely near it."""

from __future__ import annotations

from dataclasses import dataclass

from .change_point import divergence

# Back is no further from the level before than this, in sd of a row ...
RECOVERED_SD = 0.25
# ... and fits it better than the level after the change: by three standard deviations.
MIN_EVIDENCE = 9.0
# And it must not be shown to differ from the level before: by two.
MAX_EVIDENCE_OFF = 4.0


@dataclass(frozen=True, slots=True)
class Change:
    """The raw means before and after a change with the rows behind them; `correlation_rows` rows carry the evidence of one.

    `one_sided`: a level beyond the one before is as good. `is_share`: of rows of 0 and 1, whose spread follows from their mean.
    """

    before: float
    before_rows: float
    after: float
    after_rows: float
    row_sd: float
    correlation_rows: float
    is_share: bool
    one_sided: bool

    def is_back(self, mean: float, rows: float) -> bool:
        """Return whether the mean of `rows` newer rows is back: near, moved backwards, and shown by evidence."""
        if not self.is_near(mean) or (mean - self.after) * (self.before - self.after) <= 0.0:
            return False
        off_by = self._evidence((self.before, self.before_rows), (mean, rows)) if self._off(mean) > 0.0 else 0.0
        moved = self._evidence((self.after, self.after_rows), (mean, rows))
        return off_by < MAX_EVIDENCE_OFF and moved - off_by >= MIN_EVIDENCE

    def is_near(self, mean: float) -> bool:
        """Return whether a mean lies near the level before, shown or not."""
        return self._off(mean) <= RECOVERED_SD * self.row_sd

    def leads_back(self, mean: float) -> bool:
        """Return whether a mean of few rows lies nearer to the level before than to the one after."""
        return abs(mean - self.before) < abs(mean - self.after)

    def _off(self, mean: float) -> float:
        rise = 1.0 if self.after > self.before else -1.0
        off = (mean - self.before) * rise
        return max(off, 0.0) if self.one_sided else abs(off)

    def _evidence(self, one: tuple[float, float], other: tuple[float, float]) -> float:
        """Return twice the log likelihood ratio of two levels against one for two samples of (mean, rows)."""
        (first, n), (second, m) = one, other
        if self.is_share:
            first, second = min(max(first, 0.0), 1.0), min(max(second, 0.0), 1.0)
            pooled = (n * first + m * second) / (n + m)
            return 2.0 * (n * divergence(first, pooled) + m * divergence(second, pooled)) / self.correlation_rows
        variance = self.row_sd**2 * self.correlation_rows
        return n * m / (n + m) * (first - second) ** 2 / variance
