"""Page-Hinkley (Page 1954, "Continuous inspection schemes"), both directions, never forgetting its delta; River's, number for number."""

from __future__ import annotations

import math
from typing import Any, ClassVar

MIN_BLOCKS = 5
# River's first maximum: without a time to settle, so that it is kept.
FIRST_MAXIMUM = -1.0


class PageHinkley:
    """Add up how far values lie beyond `delta` from their mean; a rise or fall of the sum by `threshold` is a change.

    The arithmetic is that of River's with alpha = 1 (less forgets what delta was for), without its layers of Python, which cost four
    times as much; tests hold it to River's.
    """

    name: ClassVar[str] = "page_hinkley"
    __slots__ = ("_decrease", "_detected", "_increase", "_least", "_mean", "_most", "_n", "delta", "threshold")

    def __init__(self, delta: float, threshold: float) -> None:
        self.delta = delta
        self.threshold = threshold
        self._restart()

    def _restart(self) -> None:
        self._n = self._mean = self._increase = self._decrease = 0.0
        self._least, self._most = math.inf, FIRST_MAXIMUM
        self._detected = False

    def update(self, value: float) -> bool:
        """Take one value; after a change the next begins afresh."""
        if self._detected:
            self._restart()
        self._n = n = self._n + 1.0
        self._mean = mean = self._mean + (1.0 / n) * (value - self._mean)
        deviation, delta = value - mean, self.delta
        self._increase = increase = self._increase + deviation - delta
        self._decrease = decrease = self._decrease + deviation + delta
        if increase < self._least:
            self._least = increase
        if decrease > self._most:
            self._most = decrease
        if n >= MIN_BLOCKS:
            self._detected = increase - self._least > self.threshold or self._most - decrease > self.threshold
        return self._detected

    def parameters(self) -> dict[str, float]:
        """Return delta and threshold in standard deviations of a block."""
        return {"delta": self.delta, "threshold": self.threshold}

    def state(self) -> tuple[Any, ...]:
        """Return settings, the running mean, the four sums and whether the last value was a change."""
        least = None if math.isinf(self._least) else self._least
        sums = (self._increase, self._decrease, least, self._most)
        return self.delta, self.threshold, self._n, self._mean, *sums, self._detected

    @classmethod
    def from_state(cls, state: Any) -> PageHinkley:
        """Return the detector that gave `state`; raises ValueError or TypeError for anything else."""
        delta, threshold, n, mean, increase, decrease, least, most, detected = state
        made = cls(delta, threshold)
        made._n, made._mean = float(n), float(mean)
        made._increase, made._decrease = float(increase), float(decrease)
        made._least, made._most = math.inf if least is None else float(least), float(most)
        made._detected = bool(detected)
        return made
