"""A job and its outcome as files in a folder: how they pass between the worker and its child process. No pickle, all sizes checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..schemas.config import RepairConfig
from ..schemas.errors import ArtifactInvalid, DriftloopError, JobError, NotFound, RecipeInvalid, tells_of_memory
from ..schemas.events import RowRange, Scalar, Signature
from ..schemas.manifest import Manifest
from ..schemas.recipe_reading import definition_of, recipe_of
from ..schemas.rows import Rows
from ..schemas.verdicts import ArmResult, EarlyExit, GateVerdict
from .job import Job, ModelVersion, Outcome
from .store import digest_of, write_durably

JOB, OUTCOME, ERROR, CANDIDATE = "job.json", "outcome.json", "error.json", "candidate.onnx"
T = TypeVar("T")


class VersionFile(msgspec.Struct, frozen=True):
    """One model file of the folder, by name: `<digest>.onnx`."""

    version: int
    digest: str


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of job.json."""

    job_id: str
    model: str
    recipe: str
    definition: dict[str, Any]
    champion: VersionFile
    signature: Signature
    config: dict[str, Any]
    earlier: tuple[VersionFile, ...] = ()
    options: dict[str, Scalar] = msgspec.field(default_factory=dict)
    row_range: RowRange | None = None
    segments: tuple[str | None, ...] | None = None
    old_segments: tuple[str | None, ...] | None = None
    has_old_rows: bool = False


class OutcomeFile(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of outcome.json."""

    verdict: GateVerdict
    arm: str
    arms: tuple[ArmResult, ...]
    recalled_version: int | None = None
    manifest: Manifest | None = None
    early_exit: EarlyExit | None = None


class ErrorFile(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of error.json; `kind` as in JobError."""

    kind: str
    message: str


def write_job(folder: Path, job: Job, config: RepairConfig) -> None:
    """Write the job; job.json comes last."""
    for version in (job.champion, *job.earlier):
        write_durably(folder / f"{digest_of(version.onnx)}.onnx", version.onnx)
    _write_rows(folder / "rows.npz", job.rows)
    if job.old_rows is not None:
        _write_rows(folder / "old_rows.npz", job.old_rows)
    file = JobFile(
        job_id=job.job_id,
        model=job.model,
        recipe=job.recipe.name,
        definition=definition_of(job.recipe),
        champion=_version_file(job.champion),
        signature=job.signature,
        config=config.model_dump(mode="json"),
        earlier=tuple(_version_file(version) for version in job.earlier),
        options=dict(job.options),
        row_range=job.row_range,
        segments=job.rows.segments,
        old_segments=None if job.old_rows is None else job.old_rows.segments,
        has_old_rows=job.old_rows is not None,
    )
    write_durably(folder / JOB, msgspec.json.encode(file))


def read_job(folder: Path) -> tuple[Job, RepairConfig]:
    """Return the job and its settings; raises NotFound, JobError or ArtifactInvalid."""
    file = _decode(folder / JOB, JobFile)
    try:
        config = RepairConfig.model_validate(file.config)
        recipe = recipe_of(file.recipe, file.definition)
    except (ValueError, RecipeInvalid) as problem:
        raise JobError("error", f"{JOB} must hold sound settings and recipe: {problem}") from problem
    job = Job(
        job_id=file.job_id,
        model=file.model,
        recipe=recipe,
        champion=_read_version(folder, file.champion),
        signature=file.signature,
        rows=_read_rows(folder / "rows.npz", file.segments),
        old_rows=_read_rows(folder / "old_rows.npz", file.old_segments) if file.has_old_rows else None,
        earlier=tuple(_read_version(folder, version) for version in file.earlier),
        options=file.options,
        row_range=file.row_range,
    )
    return job, config


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome; outcome.json comes last."""
    if outcome.onnx is not None:
        write_durably(folder / CANDIDATE, outcome.onnx)
    file = OutcomeFile(
        verdict=outcome.verdict,
        arm=outcome.arm,
        arms=outcome.arms,
        recalled_version=outcome.recalled_version,
        manifest=outcome.manifest,
        early_exit=outcome.early_exit,
    )
    write_durably(folder / OUTCOME, msgspec.json.encode(file))


def read_outcome(folder: Path) -> Outcome:
    """Return the outcome; raises NotFound where there is none, ArtifactInvalid where the candidate is not the manifest's."""
    file = _decode(folder / OUTCOME, OutcomeFile)
    onnx = None
    if file.manifest is not None:
        onnx = _read(folder / CANDIDATE)
        if digest_of(onnx) != file.manifest.digest:
            raise ArtifactInvalid(f"candidate must have digest {file.manifest.digest}, got {digest_of(onnx)}")
    return Outcome(
        verdict=file.verdict,
        arm=file.arm,
        arms=file.arms,
        recalled_version=file.recalled_version,
        onnx=onnx,
        manifest=file.manifest,
        early_exit=file.early_exit,
    )


def write_error(folder: Path, problem: BaseException) -> None:
    """Write why the job could not be done."""
    kind = problem.kind if isinstance(problem, JobError) else "memory" if is_memory(problem) else "error"
    text = str(problem) if isinstance(problem, DriftloopError) else f"{type(problem).__name__}: {problem}"
    write_durably(folder / ERROR, msgspec.json.encode(ErrorFile(kind=kind, message=text[:2000])))


def read_error(folder: Path) -> JobError | None:
    """Return why the job could not be done, or None where the child did not say."""
    try:
        file = _decode(folder / ERROR, ErrorFile)
    except (NotFound, JobError):
        return None
    return JobError(file.kind, file.message)


def is_memory(problem: BaseException) -> bool:
    """Return True where a failed allocation ended the job; torch reports one as a RuntimeError, a library's loader as an ImportError."""
    return isinstance(problem, MemoryError) or tells_of_memory(str(problem))


def _version_file(version: ModelVersion) -> VersionFile:
    return VersionFile(version.version, digest_of(version.onnx))


def _read_version(folder: Path, file: VersionFile) -> ModelVersion:
    if not file.digest.isalnum():
        raise ArtifactInvalid(f"digest must be hexadecimal, got {file.digest[:80]!r}")
    data = _read(folder / f"{file.digest}.onnx")
    if digest_of(data) != file.digest:
        raise ArtifactInvalid(f"model version {file.version} must have digest {file.digest}, got {digest_of(data)}")
    return ModelVersion(file.version, file.digest, data)


def _write_rows(path: Path, rows: Rows) -> None:
    with path.open("xb") as file:
        np.savez(file, features=rows.features, labels=rows.labels, offsets=rows.offsets)


def _read_rows(path: Path, segments: tuple[str | None, ...] | None) -> Rows:
    try:
        with np.load(path, allow_pickle=False) as file:
            features, labels, offsets = file["features"], file["labels"], file["offsets"]
    except FileNotFoundError as problem:
        raise NotFound(f"{path.name} is not in {path.parent}") from problem
    except (ValueError, KeyError, OSError, EOFError) as problem:
        raise JobError("error", f"{path.name} must hold rows: {problem}") from problem
    if features.ndim != 2 or not len(features) == len(labels) == len(offsets):
        raise JobError("error", f"{path.name} must hold columns of one length, got {len(features)}, {len(labels)}, {len(offsets)}")
    if segments is not None and len(segments) != len(labels):
        raise JobError("error", f"segments must be as many as the rows, got {len(segments)} and {len(labels)}")
    kind = np.int64 if labels.dtype.kind in "iu" else np.float64
    return Rows(features.astype(np.float32), labels.astype(kind), offsets.astype(np.int64), segments)


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise JobError("error", f"{path.name} must be readable: {problem}") from problem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as problem:
        raise NotFound(f"{path.name} is not in {path.parent}") from problem
