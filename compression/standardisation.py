"""The standardisation of features: mean and spread of each column over the values that are there."""

from __future__ import annotations

import numpy as np

from .runtime import Floats


def standardisation(features: Floats) -> tuple[Floats, Floats]:
    """Return means and standard deviations (k,) of features (n, k), missing and infinite values left out; no spread counts as 1."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    values = np.where(known, features, 0).astype(np.float64)
    means = values.sum(axis=0) / count
    scales = np.sqrt((np.where(known, values - means, 0) ** 2).sum(axis=0) / count)
    scales[scales < 1e-12] = 1.0
    return means.astype(np.float32), scales.astype(np.float32)
