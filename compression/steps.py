"""The table of steps: what each step type of `schemas/recipes.py` does to a workpiece. A test says that none is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..schemas.recipes import Affine, Correct, Finetune, Prune, Quantize, Recall, Refit, Reset, Step
from .affine import affine
from .correct import correct
from .finetune import finetune
from .job_context import JobContext
from .prune import prune
from .quantize import quantize
from .recall import recall
from .refit import refit
from .reset import reset
from .workpiece import Workpiece

STEPS: dict[type[Step], Callable[[Any, Workpiece, JobContext], Workpiece]] = {
    Recall: recall,
    Affine: affine,
    Correct: correct,
    Refit: refit,
    Reset: reset,
    Finetune: finetune,
    Prune: prune,
    Quantize: quantize,
}


def run_step(step: Step, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return what a step makes of a workpiece; raises JobError, ArtifactInvalid and ModelUnsupported, each with the reason."""
    return STEPS[type(step)](step, piece, context)
