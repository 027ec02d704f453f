"""What can be done with a model: each step tries it on made-up rows, and says why where it does not take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.config import RepairConfig
from ..schemas.errors import DriftloopError
from ..schemas.events import Signature
from ..schemas.recipes import BUILT_IN, Affine, Correct, Finetune, Prune, Quantize, Refit, Step
from ..schemas.rows import Rows
from .cpu import Cpu
from .job import Job, ModelVersion
from .job_context import JobContext
from .job_data import cut
from .steps import run_step
from .track import Track
from .workpiece import Workpiece

ROWS = 240
STEPS: dict[str, Step] = {
    "affine": Affine(),
    "correct": Correct(),
    "refit": Refit(),
    "finetune": Finetune(epochs=1),
    "prune": Prune(),
    "quantize": Quantize(),
}
"""Those that change a model; recall takes any, reset what finetune takes."""


@dataclass(frozen=True, slots=True)
class Ability:
    """A step, and why it does not take the model (None where it does)."""

    step: str
    problem: str | None


def abilities(data: bytes, signature: Signature, tell: Callable[[Ability], None] = lambda one: None) -> list[Ability]:
    """Return which steps take the model in `data`, each told as soon as it is known; raises ArtifactInvalid where it does not open."""
    piece = Workpiece(data, signature, version=1)
    rows = made_up_rows(signature, ROWS)
    piece.runner.scores(rows.features)
    job = Job("check", "check", BUILT_IN["repair"], ModelVersion(1, piece.digest, data), signature, rows)
    context = JobContext(cut(job, piece, RepairConfig()), piece, (), Cpu(), 0, Track(lambda news: None))
    found = []
    for name, step in STEPS.items():
        found.append(Ability(name, _problem(step, piece, context, rows.features)))
        tell(found[-1])
    return found


def made_up_rows(signature: Signature, count: int) -> Rows:
    """Return rows of ordinary numbers and known categories, with labels by turns."""
    rng = np.random.default_rng(0)
    features = np.abs(rng.normal(size=(count, len(signature.features)))).astype(np.float32)
    for at, name in enumerate(signature.features):
        texts = signature.categories.get(name, ())
        if texts:
            features[:, at] = rng.integers(len(texts), size=count)
    labels: NDArray[np.int64] | NDArray[np.float64] = rng.normal(size=count)
    if signature.task == "classification":
        labels = rng.permutation(np.arange(count, dtype=np.int64) % len(signature.classes))
    return Rows(features, labels, np.arange(count, dtype=np.int64))


def _problem(step: Step, piece: Workpiece, context: JobContext, features: NDArray[np.float32]) -> str | None:
    try:
        made = run_step(step, piece, context)
        if not np.isfinite(made.runner.scores(features)).any():
            return "what it makes answers no row of ordinary numbers"
    except DriftloopError as problem:
        return str(problem)
    except ModuleNotFoundError as problem:
        return f"{problem.name} must be installed (pip install driftloop[worker])"
    return None
