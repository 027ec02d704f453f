"""The step `reset`: new weights, by seed, so that training begins from nothing."""

from __future__ import annotations

from ..schemas.recipes import Reset
from .job_context import JobContext
from .workpiece import Workpiece


def reset(step: Reset, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with new weights in every trained layer; raises ModelUnsupported for one that cannot be trained."""
    from .export import write_back
    from .trainer import start_afresh

    base = context.trainable(piece)
    twin = base.trainable.twin()
    start_afresh(twin.module, context.seed)
    return base.changed(write_back(base.model, twin, context.data.training.features))
