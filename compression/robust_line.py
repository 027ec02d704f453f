"""The robust line: slope and intercept from predictions to labels, which a few wild labels do not move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flat = NDArray[np.float64]

HUBER = 1.345
"""Residuals beyond so many standard deviations count linearly: 95 % as efficient as least squares on normal ones (Huber, 1981)."""
ROUNDS = 50


def fit_line(predicted: Flat, labels: Flat, ridge: float) -> tuple[float, float]:
    """Return slope and intercept from predictions to labels (n,), by Huber's loss with its scale taken from the residuals.

    `ridge` rows' worth of evidence holds the slope at 1, where the predictions are all but the same above all.
    """
    spread = float(predicted.std())
    unit = spread if spread > 1e-12 * max(1.0, float(np.abs(predicted).max())) else 1.0
    centre = float(np.median(predicted))
    columns = np.stack([(predicted - centre) / unit, np.ones_like(predicted)], axis=1)
    # Both as differences from what the champion says: nothing learnt means nothing changed.
    wanted = labels - predicted
    found = np.array([0.0, float(np.median(wanted))])
    for _ in range(ROUNDS):
        residuals = wanted - columns @ found
        scale = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
        far = np.abs(residuals) / (HUBER * scale) if scale > 0 else np.zeros_like(residuals)
        weights = 1 / np.maximum(far, 1.0)
        gram = (columns * weights[:, None]).T @ columns + np.diag([ridge, 0.0])
        newer = np.linalg.solve(gram, columns.T @ (weights * wanted))
        settled = bool(np.abs(newer - found).max() <= 1e-9 * max(1.0, float(np.abs(wanted).max())))
        found = newer
        if settled:
            break
    slope = 1.0 + float(found[0]) / unit
    return slope, float(found[1]) - (slope - 1.0) * centre
