"""The step `reset`: new weights, by seed, so that training begins from nothing."""

from __future__ import annotations

from ..schemas.recipes import Reset
from .job_context import JobContext
from .workpiece import Workpiece


def reset(step: Reset, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with new weights in every trained layer; raises ModelUnsupported for one that cannot be trained."""
    from .export import write_back
    from .last_layer import last_layer
    from .trainer import start_afresh

    base = context.trainable(piece)
    twin = base.trainable.twin()
    start_afresh(twin.module, context.seed)
    last = last_layer(twin.trunk) if piece.signature.task == "regression" else None
    labels = context.data.training.labels
    if last is not None and labels.std() > 0:
        # A fresh layer gives numbers near 0 of spread 1 or less: the labels' mean and spread from here on.
        factor, shift = last.in_unit(float(labels.mean()), float(labels.std()))
        last.rescale(1 / factor, -shift / factor)
    return base.changed(write_back(base.model, twin, context.data.training.features))
