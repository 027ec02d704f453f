"""A repair: cheap arms side by side, judged on the newest rows, which none of them was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..schemas.config import RepairConfig
from ..schemas.errors import ArtifactInvalid, JobError, ModelUnsupported
from ..schemas.events import ArmResult
from ..schemas.rows import Rows
from .export import check_parity, write_back
from .gate import paired_interval
from .importer import ImportedModel, import_onnx
from .job import Job
from .runtime import Runner, outcomes
from .trainer import Examples, reset, train

Progress = Callable[[str, float, str], None]
TRAINED_ARMS = ("finetune", "finetune_old", "scratch")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one arm offers; `results` holds one number per held-out row, higher is better."""

    arm: str
    onnx: bytes
    results: NDArray[np.float64]
    version: int | None = None

    @property
    def metric(self) -> float:
        """Return the mean result."""
        return float(self.results.mean())

    def said(self) -> ArmResult:
        """Return the arm as the events tell it."""
        return ArmResult(arm=self.arm, metric=self.metric, rows=len(self.results), version=self.version)


@dataclass(frozen=True, slots=True)
class Repaired:
    """The chosen candidate and all of them; `untrained` says that a recalled version made training needless.

    `kept` is empty, or the reason why the champion itself, then the one chosen, stays.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    trained_rows: int
    untrained: bool
    kept: str = ""


def split(rows: Rows, config: RepairConfig) -> tuple[Rows, Rows]:
    """Return the rows to train on and the newest, held out; raises JobError where too few remain."""
    held = max(config.min_holdout_rows, round(len(rows) * config.holdout_share))
    if len(rows) - held < config.min_holdout_rows:
        raise JobError("error", f"labelled rows must be at least {2 * config.min_holdout_rows}, got {len(rows)}")
    return rows.take(slice(0, len(rows) - held)), rows.take(slice(len(rows) - held, len(rows)))


def repair(job: Job, config: RepairConfig, progress: Progress) -> Repaired:
    """Return the best candidate of all arms.

    An earlier version that does as well on the held-out rows as the model in force did before the drift ends the search: a concept that
    returns is recalled, not trained again. So does a champion that is back at that level, unless an earlier version is better still.
    Raises JobError where no arm could run.
    """
    training, holdout = split(job.rows, config)
    champion = _results(job, job.champion.onnx, holdout)
    before = _before(job, config)
    progress("recall", 0.1, f"{len(job.earlier)} earlier versions on {len(holdout)} rows")
    recalled = _recall(job, holdout)
    best = max(recalled, key=lambda candidate: candidate.metric, default=None)
    if best is not None and not _better(best.results, champion, job, config):
        best = None
    if best is not None and before is not None and _reaches(before.mean(), best.results):
        return Repaired(best, tuple(recalled), 0, untrained=True)
    if best is None and before is not None and not _is_below(champion, before, config):
        stays = Candidate("champion", job.champion.onnx, champion, job.champion.version)
        reason = f"the champion is back at the level before the change: {stays.metric:.3g} against {before.mean():.3g}"
        return Repaired(stays, (stays, *recalled), 0, untrained=True, kept=reason)
    trained = _train_arms(job, config, progress)
    candidates = [*recalled, *trained]
    if not candidates:
        raise JobError("error", "a repair must have an earlier version or a model that can be trained, got neither")
    leader = max(trained, key=lambda candidate: candidate.metric, default=None)
    if leader is None:
        chosen = max(recalled, key=lambda candidate: candidate.metric)
    elif best is None or _better(leader.results, best.results, job, config):
        chosen = leader
    else:
        chosen = best
    return Repaired(chosen, tuple(candidates), 0 if chosen.arm == "recall" else len(training), untrained=False)


def _recall(job: Job, holdout: Rows) -> list[Candidate]:
    candidates = []
    seen = {job.champion.digest}
    for version in sorted(job.earlier, key=lambda version: -version.version):
        if version.digest in seen:
            continue
        seen.add(version.digest)
        try:
            results = _results(job, version.onnx, holdout)
        except ArtifactInvalid:
            continue  # one damaged or foreign version must not end the repair
        candidates.append(Candidate("recall", version.onnx, results, version.version))
    return candidates


def _before(job: Job, config: RepairConfig) -> NDArray[np.float64] | None:
    """Return the results of the best known version, the one that served among them, on the rows before the drift; None: too few."""
    if job.old_rows is None:
        return None
    old = job.old_rows.take(slice(max(0, len(job.old_rows) - config.max_old_rows), len(job.old_rows)))
    if len(old) < config.min_holdout_rows:
        return None
    known = []
    for version in (job.champion, *job.earlier):
        try:
            known.append(_results(job, version.onnx, old))
        except ArtifactInvalid:
            continue
    return max(known, key=lambda results: float(results.mean()), default=None)


def _reaches(level: float, results: NDArray[np.float64]) -> bool:
    """Say whether held-out results are at a level, one standard error allowed."""
    return float(results.mean()) >= level - float(results.std(ddof=1)) / math.sqrt(len(results))


def _is_below(results: NDArray[np.float64], before: NDArray[np.float64], config: RepairConfig) -> bool:
    """Say whether held-out results are shown to be below those before the change; both are samples, and both have their error."""
    error = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in (results, before)))
    return float(before.mean() - results.mean()) > NormalDist().inv_cdf(0.5 + config.confidence / 2) * error


def _train_arms(job: Job, config: RepairConfig, progress: Progress) -> list[Candidate]:
    training, holdout = split(job.rows, config)
    base = _trainable(job)
    if base is None:
        return []
    data, imported = base
    check_parity(data, imported.module, training.features)
    old = job.old_rows
    candidates = []
    for index, arm in enumerate(TRAINED_ARMS):
        if arm == "finetune_old" and (old is None or not len(old) or not config.old_row_weight or not config.max_old_rows):
            continue
        progress(arm, 0.2 + 0.2 * index, f"training on {len(training)} rows")
        examples = Examples.of(training)
        if arm == "finetune_old" and old is not None:
            count = min(len(old), config.max_old_rows, len(training))
            examples = examples + Examples.of(old.take(slice(len(old) - count, len(old))), config.old_row_weight)
        twin = imported.twin()
        if arm == "scratch":
            reset(twin, config.seed)
        try:
            train(twin, examples, job.signature.task, config)
            onnx = write_back(data, twin, holdout.features)
        except (JobError, ArtifactInvalid) as problem:
            progress(arm, 0.2 + 0.2 * index, f"gave nothing: {problem}")
            continue
        candidates.append(Candidate(arm, onnx, _results(job, onnx, holdout)))
    return candidates


def _trainable(job: Job) -> tuple[bytes, ImportedModel] | None:
    """Return the champion in torch, or the newest earlier version where the champion is quantized, say, and cannot be trained."""
    for version in (job.champion, *sorted(job.earlier, key=lambda version: -version.version)):
        try:
            return version.onnx, import_onnx(version.onnx)
        except ModelUnsupported:
            continue
    return None


def _results(job: Job, onnx: bytes, rows: Rows) -> NDArray[np.float64]:
    return outcomes(Runner(onnx, job.signature).scores(rows.features), rows, job.signature.task)


def _better(one: NDArray[np.float64], other: NDArray[np.float64], job: Job, config: RepairConfig) -> bool:
    return paired_interval(one - other, config.confidence, job.signature.task)[0] > 0


def seeded(config: RepairConfig, seed: int) -> RepairConfig:
    """Return the settings with another seed."""
    return RepairConfig(**{**config.model_dump(), "seed": seed})
