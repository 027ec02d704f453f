"""The lineage of a candidate, as its manifest tells it: parents, rows, recipe, seed, packages, CPU, verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from ..schemas.errors import ArtifactInvalid, JobError
from ..schemas.events import Scalar
from ..schemas.manifest import Manifest
from ..schemas.recipe_reading import definition_of
from ..schemas.rows import Rows
from ..schemas.verdicts import GateVerdict
from .arms import Candidate
from .job import Job
from .job_context import JobContext
from .runtime import latencies_s

_PACKAGES = ("driftloop", "torch", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its verdict, and the timer (seconds) that its latency is taken with."""

    candidate: Candidate
    verdict: GateVerdict
    timer: Callable[[], float]


def manifest_of(job: Job, context: JobContext, judged: Judged) -> Manifest:
    """Return the manifest of a judged candidate; raises JobError where it does not load."""
    piece, holdout = judged.candidate.piece, context.data.holdout
    try:
        seconds = latencies_s((piece.runner, piece.runner), holdout.features[:1], judged.timer, rounds=10)[0]
    except ArtifactInvalid as problem:
        raise JobError("error", f"candidate must load: {problem}") from problem
    flags = context.cpu.flags
    cpu: dict[str, Scalar] = {
        "vnni": context.cpu.has_vnni,
        "avx512f": "avx512f" in flags,
        "avx2": "avx2" in flags,
        "threads": 1,
    }
    return Manifest(
        digest=piece.digest,
        size_bytes=len(piece.onnx),
        model=job.model,
        signature=job.signature,
        recipe=job.recipe.name,
        definition=definition_of(job.recipe),
        arm=judged.candidate.arm,
        job_id=job.job_id,
        parent_digest=job.champion.digest,
        parent_version=job.champion.version,
        rows=job.row_range,
        trained_rows=piece.trained_rows,
        holdout_rows=len(holdout),
        rows_digest=rows_digest(job.rows),
        seed=context.seed,
        options=dict(job.options),
        packages=package_versions(),
        cpu=cpu,
        verdict=judged.verdict,
        latency_ms=round(seconds * 1000, 6),
        calibration=piece.ranges,
    )


def rows_digest(rows: Rows) -> str:
    """Return the sha256 of the rows: features, labels and offsets as bytes."""
    digest = hashlib.sha256()
    for column in (rows.features, rows.labels, rows.offsets):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions of what makes the artifact; what is not installed is left out."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
