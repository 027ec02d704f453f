"""The step `finetune`: training on the rows after the change, with weighted rows from before it where it says so."""

from __future__ import annotations

from ..schemas.errors import JobError
from ..schemas.recipes import Finetune
from .job_context import JobContext
from .workpiece import Workpiece


def finetune(step: Finetune, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the trained model; raises ModelUnsupported for one that cannot be trained, JobError where the training fails."""
    from .export import write_back
    from .trainer import Examples, Training, train

    data = context.data
    examples = Examples.of(data.training)
    if step.old_weight:
        if data.old is None:
            raise JobError("error", "finetune.old_weight must be 0 without rows from before the change, got none of them")
        count = min(len(data.old), len(data.training))
        examples = examples + Examples.of(data.old.take(slice(len(data.old) - count, len(data.old))), step.old_weight)
    base = context.trainable(piece)
    twin = base.trainable.twin()
    context.track.progress(0.0, f"training on {len(data.training)} rows")
    train(twin, examples, Training(step, piece.signature.task, context.seed, context.track))
    return base.changed(write_back(base.model, twin, data.training.features), trained_rows=len(data.training))
