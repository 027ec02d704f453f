"""The step `affine`: a linear map of the champion's scores, fitted on the rows after the change; no torch, no look into the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import JobError
from ..schemas.recipes import Affine
from .job_context import JobContext
from .robust_line import fit_line
from .score_head import ScoreHead, Scores
from .workpiece import Workpiece

Labels = NDArray[np.int64]
Flat = NDArray[np.float64]

FOLDS = 5
ROWS_PER_WEIGHT = 2
"""The full map is tried where there are at least so many rows for each of its numbers: 84 for six classes, 220 for ten."""
STOP = {"ftol": 1e-6, "maxiter": 200}
"""A gain of a millionth of the loss is none that rows could show."""


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """What is added to scores: centred scores (n, k) times `weights` (k, k), plus `bias` (k,)."""

    weights: Flat
    bias: Flat

    def of(self, scores: Scores) -> Scores:
        """Return the mapped scores."""
        return np.asarray(scores + centred(scores) @ self.weights + self.bias)


def affine(step: Affine, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with a map of its scores behind it; raises ModelUnsupported, ArtifactInvalid, JobError as a ScoreHead does."""
    rows = context.data.training
    head = ScoreHead(piece, rows.features)
    scores = head.read(rows.features)
    sound = np.asarray(np.isfinite(scores).all(axis=1))
    if not sound.any():
        raise JobError("error", "training rows must give finite scores, got none that do")
    rows, scores = rows.where(sound), scores[sound]
    context.track.progress(0.0, f"mapping {head.columns} scores on {len(rows)} rows")
    if head.link == "number":
        slope, intercept = fit_line(scores[:, 0], rows.labels.astype(np.float64), step.ridge)
        weight, bias, meant = np.array([[slope]]), np.array([intercept]), slope * scores + intercept
    else:
        found = fit_map(scores, rows.labels.astype(np.int64), step.ridge)
        centring = np.eye(head.columns) - 1 / head.columns
        weight, bias, meant = np.eye(head.columns) + centring @ found.weights, found.bias, found.of(scores)
    mapped = head.node("Gemm", head.scores, head.constant(weight), head.constant(bias))
    return piece.changed(head.finish(mapped, meant, rows.features), trained_rows=len(rows))


def centred(scores: Scores) -> Scores:
    """Return scores less their mean over the classes: what is added to all of a row's scores changes no chance."""
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def fit_map(scores: Scores, labels: Labels, ridge: float) -> ScoreMap:
    """Return the map of scores (n, k) that gives the labels the best chances, of the form that does so on rows it was not fitted on.

    The forms, from poor to rich: a bias for each class (prior shift), beside it one scale for all (lost calibration) or one for each
    class, all of the matrix (classes that changed places). `ridge` / 2 times the sum of squares is added to the summed log loss.
    """
    classes = scores.shape[1]
    kinds = list(FORMS)
    if len(labels) < ROWS_PER_WEIGHT * classes * (classes + 1):
        kinds.remove("full")
    folds = np.arange(len(labels)) % FOLDS
    losses = {}
    for kind in kinds:
        held = 0.0
        for fold in range(FOLDS):
            inside = folds != fold
            found = _fitted(kind, scores[inside], labels[inside], ridge)
            held += _log_loss(found.of(scores[~inside]), labels[~inside])
        losses[kind] = held
    # The first of equals is the poorest.
    return _fitted(min(losses, key=losses.__getitem__), scores, labels, ridge)


def _bias(numbers: Flat, classes: int) -> ScoreMap:
    return ScoreMap(np.zeros((classes, classes)), numbers)


def _scaled(numbers: Flat, classes: int) -> ScoreMap:
    return ScoreMap(numbers[0] * np.eye(classes), numbers[1:])


def _each(numbers: Flat, classes: int) -> ScoreMap:
    return ScoreMap(np.diag(numbers[:classes]), numbers[classes:])


def _full(numbers: Flat, classes: int) -> ScoreMap:
    return ScoreMap(numbers[: classes * classes].reshape(classes, classes), numbers[classes * classes :])


FORMS = {"bias": _bias, "scaled": _scaled, "each": _each, "full": _full}


def _fitted(kind: str, scores: Scores, labels: Labels, ridge: float) -> ScoreMap:
    """Return the map of one form, from that which changes nothing, by L-BFGS on a convex loss."""
    from scipy.optimize import minimize

    classes = scores.shape[1]
    inputs = centred(scores)
    hits = np.zeros_like(scores)
    hits[np.arange(len(labels)), labels] = 1.0

    def loss(numbers: Flat) -> tuple[float, Flat]:
        mapped = scores + inputs @ FORMS[kind](numbers, classes).weights + FORMS[kind](numbers, classes).bias
        gap = _chances(mapped) - hits
        outer = inputs.T @ gap
        parts = {
            "bias": np.zeros(0),
            "scaled": np.array([np.trace(outer)]),
            "each": np.diag(outer),
            "full": outer.ravel(),
        }
        slope = np.concatenate([parts[kind], gap.sum(axis=0)]) + ridge * numbers
        return _log_loss(mapped, labels) + ridge / 2 * float(numbers @ numbers), slope

    count = classes + {"bias": 0, "scaled": 1, "each": classes, "full": classes * classes}[kind]
    return FORMS[kind](minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B", options=STOP).x, classes)


def _chances(scores: Scores) -> Scores:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _log_loss(scores: Scores, labels: Labels) -> float:
    """Return the summed log loss."""
    top = scores.max(axis=1)
    whole = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return float((whole - scores[np.arange(len(labels)), labels]).sum())
