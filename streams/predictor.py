"""A predictor: the champion as a function of features, as programs hold them; what the model's inputs are is its own affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import EventInvalid
from ..schemas.events import Scalar, Signature
from ..schemas.feature_row import FeatureRows
from .client_features import one_row

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one row: its class with a score for each class, or its number without scores."""

    output: Scalar
    scores: list[float] | None = None


class Predictor:
    """A model that takes features by name or in order: numbers, and texts where the signature has categories.

    Call it with one row, give `many` a list of rows, or an array (n, k) of numbers as the model takes them. Not to be used in a child that
    was forked after it was made: the threads of its session are the parent's.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        self._rows = FeatureRows(signature)
        self._shape = tuple(session.get_inputs()[0].shape[1:])

    def __call__(self, features: Any) -> Answer:
        """Return the answer to one row, as `Client.log_prediction` takes output and scores; raises EventInvalid for odd features."""
        return self.many([features])[0]

    def many(self, rows: Sequence[Any] | NDArray[Any]) -> list[Answer]:
        """Return the answers to several rows, in order; raises EventInvalid as a call does."""
        scores = self.scores(rows)
        if self.signature.task == "regression":
            return [Answer(float(number)) for number in scores[:, 0]]
        # A row without finite scores is answered like any other: the monitor counts it.
        best = np.nan_to_num(scores, nan=-np.inf).argmax(axis=1)
        return [Answer(self.signature.classes[at], row.tolist()) for at, row in zip(best.tolist(), scores, strict=True)]

    def scores(self, rows: Sequence[Any] | NDArray[Any]) -> Floats:
        """Return the scores of rows, float32 (n, columns): one for each class, or one number."""
        matrix = self._matrix(rows)
        count = len(matrix)
        if not count:
            return np.zeros((0, max(len(self.signature.classes), 1)), np.float32)
        feed = {self.signature.input_name: matrix.reshape(count, *self._shape)}
        found = np.asarray(self._session.run([self.signature.output_name], feed)[0], np.float32).reshape(count, -1)
        if found.shape[1] == 1 and len(self.signature.classes) == 2:
            # One sigmoid is P(second class).
            return np.concatenate([1 - found, found], axis=1)
        return found

    def _matrix(self, rows: Sequence[Any] | NDArray[Any]) -> Floats:
        width = len(self.signature.features)
        if isinstance(rows, np.ndarray) and rows.dtype.kind in "fiub":
            if rows.ndim < 2 or int(np.prod(rows.shape[1:])) != width:
                raise EventInvalid("invalid", f"features must be rows of {width} numbers, got shape {list(rows.shape)}")
            return np.ascontiguousarray(rows, np.float32)
        return np.array([self._rows.row(one_row(row)) for row in rows], np.float32).reshape(-1, width)
