"""The step `recall`: an earlier version as it is."""

from __future__ import annotations

from ..schemas.errors import JobError
from ..schemas.recipes import Recall
from .job_context import JobContext
from .workpiece import Workpiece


def recall(step: Recall, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the earlier version that the step names, else the newest; raises JobError where there is none, ArtifactInvalid."""
    for known in context.earlier:
        if step.version in (None, known.version):
            known.runner  # noqa: B018 - a damaged or foreign version is told here
            return known
    kept = ", ".join(str(known.version) for known in context.earlier) or "none"
    raise JobError("error", f"recall.version must be an earlier version ({kept}), got {step.version}")
