"""Rows: labelled examples in columns, as repairs and replays use them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """n labelled rows in stream order.

    `features`: float32 (n, k) in the signature's order, NaN where missing. `labels`: int64 class indices (n,) in the signature's order
    of classes, or float64 numbers for regression. `offsets`: int64 (n,) of the predictions. `segments`: one name per row or None.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float64]
    offsets: NDArray[np.int64]
    segments: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.labels)

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """Return the rows at which `mask` is True."""
        names = None if self.segments is None else tuple(name for name, kept in zip(self.segments, mask, strict=True) if kept)
        return Rows(self.features[mask], self.labels[mask], self.offsets[mask], names)

    def followed_by(self, newer: Rows) -> Rows:
        """Return these rows and newer ones behind them."""
        segments = None
        if self.segments is not None or newer.segments is not None:
            segments = tuple(name for part in (self, newer) for name in part.segments or (None,) * len(part))
        labels: NDArray[np.int64] | NDArray[np.float64] = np.concatenate([self.labels, newer.labels])
        features, offsets = np.concatenate([self.features, newer.features]), np.concatenate([self.offsets, newer.offsets])
        return Rows(features, labels, offsets, segments)

    def take(self, which: slice) -> Rows:
        """Return the rows of a slice."""
        segments = None if self.segments is None else self.segments[which]
        return Rows(self.features[which], self.labels[which], self.offsets[which], segments)
