"""Cross-fitting: every training row is judged by what was trained without it, so that arms are chosen by more rows than are held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..schemas.rows import Rows
from .job_data import JobData

Results = NDArray[np.float64]
Mask = NDArray[np.bool_]

FOLDS = 3
"""Each arm is trained so often for the choice; with more folds the choice is little better, and takes longer."""
CROSSED_ROWS = 3_000
"""Of more training rows the newest third alone is judged: it is enough, and training takes seconds there."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """The folds of the training rows: thirds by time, each judged by what the others train."""

    data: JobData
    folds: tuple[slice, ...]

    @classmethod
    def of(cls, data: JobData) -> Crossing:
        """Return the folds of a job's training rows."""
        count = len(data.training)
        borders = [count * fold // FOLDS for fold in range(FOLDS + 1)]
        folds = tuple(slice(low, high) for low, high in pairwise(borders))
        return cls(data, folds if count <= CROSSED_ROWS else folds[-1:])

    @property
    def judged(self) -> Rows:
        """Return the rows that are judged, in order."""
        return self.data.training.take(slice(self.folds[0].start, None))

    def parts(self) -> tuple[tuple[JobData, Rows], ...]:
        """Return for each fold the data to train with, and the rows to judge by what was trained."""
        training = self.data.training
        places = np.arange(len(training))
        parts = []
        for fold in self.folds:
            outside = training.where((places < fold.start) | (places >= fold.stop))
            parts.append((replace(self.data, training=outside), training.take(fold)))
        return tuple(parts)

    def masks(self) -> tuple[Mask, ...]:
        """Return for each fold where its rows are among the judged ones."""
        places = np.arange(self.folds[0].start, len(self.data.training))
        return tuple((places >= fold.start) & (places < fold.stop) for fold in self.folds)

    def evidence(self, champion: Results, chosen: Callable[[Mask], Results]) -> Evidence | None:
        """Return what the choice is worth on rows that it was not made by: `chosen` gives the results of who is chosen by some rows.

        None where there is one fold: the choice was made by those rows.
        """
        if len(self.folds) < 2:
            return None
        results = np.zeros(len(champion))
        for mask in self.masks():
            results[mask] = chosen(~mask)[mask]
        return Evidence(self.judged, champion, results)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Results of champion and candidate (n,) on training rows, each of which neither the model nor the choice of its arm had seen."""

    rows: Rows
    champion: Results
    candidate: Results
