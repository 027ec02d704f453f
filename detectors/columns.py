"""The columns between intake and watch: what one batch admitted and joined, ready for numpy.

`order` is the position of the record that caused the row in the merged log of the partition (a counter over all admitted and refused
records, kept in the state), so that everything derived from rows can be put in one order, however the log was cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class FeatureGroup:
    """The features of those rows whose models share one layout.

    `rows`: ascending indices into the InputRows. `values`: float64 (len(rows), len(names)), NaN where missing. `numeric`: bool
    (len(names),), False for a feature that carries categories (its column is all NaN and no signal is made of it).
    """

    names: tuple[str, ...]
    rows: Ints
    values: Floats
    numeric: NDArray[np.bool_]


@dataclass(slots=True)
class InputRows:
    """The admitted predictions of a batch in merged order, columns of length n.

    `model`: slot in the ModelTable. `offset`: of the prediction record. `ts`: event time, seconds. `time_ms`: stream time.
    `confidence`: highest score, NaN without scores. `latency_ms`: NaN where not given.
    """

    order: Ints
    model: Ints
    version: Ints
    offset: Ints
    ts: Floats
    time_ms: Ints
    confidence: Floats
    latency_ms: Floats
    groups: list[FeatureGroup]

    def take(self, keep: NDArray[np.bool_]) -> InputRows:
        """Return the rows where `keep` is True."""
        places = np.cumsum(keep) - 1
        groups = []
        for group in self.groups:
            kept = keep[group.rows]
            if kept.any():
                groups.append(FeatureGroup(group.names, places[group.rows[kept]], group.values[kept], group.numeric))
        first = (self.order[keep], self.model[keep], self.version[keep], self.offset[keep], self.ts[keep], self.time_ms[keep])
        return InputRows(*first, self.confidence[keep], self.latency_ms[keep], groups)


FIT, UNFIT, CONTRARY = range(3)


@dataclass(slots=True)
class JoinedRows:
    """The pairs that a batch completed, in merged order, columns of length m.

    A pair's `order` is that of its later record. `ts`: event time of the prediction. `output`, `label`: class index in the model's
    classes, or the number itself for regression. `error`: 0 or 1, or the absolute error. `scores`: float64 (m, widest model), NaN
    beyond a model's classes, without scores, and where they are no chances of the classes. `fitness`: FIT, UNFIT where they are none, or
    CONTRARY where the highest is of another class than the output; None where all are FIT.
    """

    order: Ints
    model: Ints
    version: Ints
    prediction_offset: Ints
    label_offset: Ints
    ts: Floats
    output: Floats
    label: Floats
    error: Floats
    scores: Floats
    fitness: NDArray[np.int8] | None = None


def joined_rows(parts: Sequence[JoinedRows]) -> JoinedRows:
    """Return the rows of consecutive parts as one."""
    names = ("order", "model", "version", "prediction_offset", "label_offset", "ts", "output", "label", "error")
    ints, floats = np.zeros(0, np.int64), np.zeros(0)
    columns = {
        name: np.concatenate([ints if at < 5 else floats, *(getattr(part, name) for part in parts)])
        for at, name in enumerate(names)
    }
    width = max((part.scores.shape[1] for part in parts), default=0)
    scores = np.full((len(columns["order"]), width), np.nan)
    fitness, start = np.full(len(scores), FIT, np.int8), 0
    for part in parts:
        here = slice(start, start + len(part.order))
        scores[here, : part.scores.shape[1]] = part.scores
        if part.fitness is not None:
            fitness[here] = part.fitness
        start = here.stop
    return JoinedRows(**columns, scores=scores, fitness=fitness if (fitness != FIT).any() else None)
