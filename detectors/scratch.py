"""Scratch: memory for the numbers of one batch, used over and over, by all banks together."""

from __future__ import annotations

import math

import numpy as np

from .columns import Floats

# Fresh memory of a batch costs a page fault each 4 kB; beyond this many numbers it is given back all the same.
KEPT_NUMBERS = 1_000_000


class Scratch:
    """One array of numbers, as large as the largest that was asked for."""

    def __init__(self) -> None:
        self._held = np.empty(0)

    def take(self, shape: tuple[int, ...]) -> Floats:
        """Return an array that lasts until the next call."""
        size = math.prod(shape)
        if size > KEPT_NUMBERS:
            return np.empty(shape)
        if len(self._held) < size:
            self._held = np.empty(size)
        return self._held[:size].reshape(shape)
