"""The step `correct`: the champion as it is, and behind it a small net that learns from its features and scores what to add to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import JobError
from ..schemas.recipes import Correct
from ..schemas.rows import Rows
from .job_context import JobContext
from .runtime import Floats
from .score_head import ScoreHead, Scores
from .standardisation import standardisation
from .workpiece import Workpiece

FAR = 10.0
"""Features are cut at so many standard deviations: beyond, a net only extrapolates, and tree models take infinite values too."""
REACH = 8.0
"""Logits are shrunk until nearly all of them are within this, as chances are cut: what a champion is sure of must be in reach."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the net sees and gives: features by `means` and `scales`, scores less their mean over `unit`, corrections in `step`.

    `shrunk`: what logits are multiplied by before anything is added. `centre`: taken from a regression's predictions.
    """

    means: Floats
    scales: Floats
    unit: float
    step: float
    shrunk: float
    centre: float

    def inputs(self, features: Floats, scores: Scores) -> NDArray[np.float64]:
        """Return the net's inputs (n, k + columns): standardised features, missing ones as the mean, and scores."""
        filled = np.where(np.isnan(features), self.means, features)
        far = np.clip((filled - self.means) / self.scales, -FAR, FAR)
        return np.concatenate([far, self.seen(scores)], axis=1)

    def seen(self, scores: Scores) -> Scores:
        """Return scores as the net sees them."""
        return np.asarray((scores @ self.centring(scores.shape[1]) - self.centre) / self.unit)

    def centring(self, columns: int) -> NDArray[np.float64]:
        """Return the matrix that takes from scores their mean over the classes; a single number stays."""
        return np.eye(columns) - (1 / columns if columns > 1 else 0.0)


def correct(step: Correct, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with a correction of its scores behind it; raises as a ScoreHead does, JobError where the training fails."""
    rows = context.data.training
    head = ScoreHead(piece, rows.features)
    scores = head.read(rows.features)
    sound = np.asarray(np.isfinite(scores).all(axis=1))
    if not sound.any():
        raise JobError("error", "training rows must give finite scores, got none that do")
    rows, scores = rows.where(sound), scores[sound]
    scaling = _scaling(head, rows, scores)
    context.track.progress(0.0, f"correcting {head.columns} scores on {len(rows)} rows")
    layers = _trained(step, scaling, (rows, scores), context)
    inputs = scaling.inputs(rows.features, scores)
    meant = scores * scaling.shrunk + layers.of(inputs)
    return piece.changed(head.finish(_added(head, scaling, layers), meant, rows.features), trained_rows=len(rows))


@dataclass(frozen=True, slots=True)
class Layers:
    """The members side by side as one net: inputs @ first + offset, Relu, @ last + bias; float64."""

    first: NDArray[np.float64]
    offset: NDArray[np.float64]
    last: NDArray[np.float64]
    bias: NDArray[np.float64]

    def of(self, inputs: NDArray[np.float64]) -> Scores:
        """Return what is added to the scores."""
        return np.asarray(np.maximum(inputs @ self.first + self.offset, 0) @ self.last + self.bias)


def _scaling(head: ScoreHead, rows: Rows, scores: Scores) -> Scaling:
    means, scales = standardisation(rows.features)
    if head.link == "number":
        unit = float(scores.std())
        step = float((rows.labels - scores[:, 0]).std())
        return Scaling(means, scales, unit if unit > 0 else 1.0, step if step > 0 else 1.0, 1.0, float(scores.mean()))
    around = scores - scores.mean(axis=1, keepdims=True)
    shrunk = 1.0
    if head.link == "logits":
        shrunk = min(1.0, REACH / max(float(np.quantile(np.abs(around), 0.99)), 1e-12))
    unit = float(np.sqrt((around**2).mean()))
    return Scaling(means, scales, unit if unit > 0 else 1.0, 1.0, shrunk, 0.0)


def _trained(step: Correct, scaling: Scaling, data: tuple[Rows, Scores], context: JobContext) -> Layers:
    """Return the members, which begin differently and see the same batches."""
    from .correction_net import CorrectionNet
    from .trainer import Examples, Training, train

    rows, scores = data
    task, columns = context.champion.signature.task, scores.shape[1]
    inputs = scaling.inputs(rows.features, scores).astype(np.float32)
    # The net of a regression gives the step from prediction to label; that of classes is trained with the champion's scores added.
    is_number = task == "regression"
    labels = (rows.labels - scores[:, 0]) / scaling.step if is_number else rows.labels
    examples = Examples(inputs, labels, np.ones(len(rows), np.float32))
    shape = step.members, step.hidden, columns
    net = CorrectionNet(inputs.shape[1], shape, 0.0 if is_number else scaling.unit * scaling.shrunk)
    net.start(context.seed)
    train(net, examples, Training(step, task, context.seed, context.track, step.members))
    # The mean of the members is one net, whose output weights are theirs divided by their number.
    share = scaling.step / step.members
    first, offset, last, bias = (
        part.detach().numpy().astype(np.float64) for part in (net.first.weight, net.first.bias, net.last, net.bias)
    )
    return Layers(first.T, offset, last.reshape(-1, columns) * share, bias.sum(axis=(0, 1)) * share)


def _added(head: ScoreHead, scaling: Scaling, layers: Layers) -> str:
    """Put the net behind the scores, and return the name of the sum."""
    features, count = head.features(), len(scaling.means)
    means = head.constant(scaling.means)
    filled = head.node("Where", head.node("IsNaN", features), means, features)
    scaled = head.node("Div", head.node("Sub", filled, means), head.constant(scaling.scales))
    near = head.node("Clip", scaled, head.constant(np.array(-FAR)), head.constant(np.array(FAR)))
    # What is done to scores before the first layer is linear, and goes into its weights.
    weights = scaling.centring(head.columns) @ layers.first[count:] / scaling.unit
    offset = layers.offset - scaling.centre / scaling.unit * layers.first[count:].sum(axis=0)
    of_features = head.node("Gemm", near, head.constant(layers.first[:count]), head.constant(offset))
    of_scores = head.node("MatMul", head.scores, head.constant(weights))
    hidden = head.node("Relu", head.node("Add", of_features, of_scores))
    more = head.node("Gemm", hidden, head.constant(layers.last), head.constant(layers.bias))
    scores = head.scores if scaling.shrunk == 1.0 else head.node("Mul", head.scores, head.constant(np.array([scaling.shrunk])))
    return head.node("Add", scores, more)
