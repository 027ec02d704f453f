"""Page-Hinkley (Page 1954, "Continuous inspection schemes"): River's, both directions, never forgetting its delta."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from river import drift, stats

MIN_BLOCKS = 5


class PageHinkley:
    """The sum of how far values lie beyond `delta` from their mean; a rise or fall of the sum by `threshold` is a change."""

    name: ClassVar[str] = "page_hinkley"
    __slots__ = ("_inner", "delta", "threshold")

    def __init__(self, delta: float, threshold: float) -> None:
        self.delta = delta
        self.threshold = threshold
        # With alpha < 1 the sums shrink while delta does not, and River's default then forgets what delta was for.
        self._inner: Any = drift.PageHinkley(min_instances=MIN_BLOCKS, delta=delta, threshold=threshold, alpha=1.0, mode="both")

    def update(self, value: float) -> bool:
        """Take one value; after a change River starts afresh at the next."""
        self._inner.update(value)
        return bool(self._inner.drift_detected)

    def parameters(self) -> dict[str, float]:
        """Return delta and threshold in standard deviations of a block."""
        return {"delta": self.delta, "threshold": self.threshold}

    def state(self) -> tuple[Any, ...]:
        """Return settings, the running mean, the four sums and whether the last value was a change."""
        inner = self._inner
        least = inner._min_increase
        return (
            *(self.delta, self.threshold, inner._x_mean.n, inner._x_mean.get(), inner._sum_increase, inner._sum_decrease),
            *(None if math.isinf(least) else least, inner._max_decrease, bool(inner.drift_detected)),
        )

    @classmethod
    def from_state(cls, state: Any) -> PageHinkley:
        """Return the detector that gave `state`; raises ValueError or TypeError for anything else."""
        delta, threshold, n, mean, increase, decrease, least, most, detected = state
        made = cls(delta, threshold)
        inner = made._inner
        inner._x_mean = stats.Mean._from_state(n, mean)
        inner._sum_increase, inner._sum_decrease = increase, decrease
        inner._min_increase = math.inf if least is None else least
        inner._max_decrease = most
        inner._drift_detected = detected
        return made
