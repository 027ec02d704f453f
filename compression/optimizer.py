"""The optimizer: a job in, a judged outcome out; recipes are a table of functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.config import RepairConfig
from ..schemas.errors import ArtifactInvalid, JobError
from ..schemas.events import ArmResult, GateVerdict, Scalar
from ..schemas.manifest import Manifest
from ..schemas.rows import Rows
from .champion_rows import answered
from .gate import METRICS, Trial, judge
from .job import Job, Outcome
from .quantize import Cpu, quantize_int8
from .runtime import Runner, latencies_s
from .store import digest_of

Progress = Callable[[str, float, str], None]
Timer = Callable[[], float]
_PACKAGES = ("driftloop", "torch", "onnx", "onnxruntime", "numpy")
_CALIBRATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class Bench:
    """What every recipe works with."""

    config: RepairConfig
    timer: Timer
    cpu: Cpu
    progress: Progress


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate that was judged, before its manifest is written."""

    onnx: bytes
    verdict: GateVerdict
    arm: str
    holdout: Rows
    trained_rows: int = 0
    calibration: dict[str, float] | None = None


class Optimizer:
    """What runs jobs; `timer` gives seconds, `cpu` is the machine they are judged on."""

    def __init__(self, config: RepairConfig, timer: Timer, cpu: Cpu | None = None) -> None:
        self._config = config
        self._timer = timer
        self._cpu = Cpu() if cpu is None else cpu

    def run(self, job: Job, progress: Progress) -> Outcome:
        """Return the judged outcome of `job`; `progress` hears (step, fraction, message).

        Raises JobError for an unknown recipe, too few or unfit rows, and ArtifactInvalid for a champion that cannot be used.
        """
        recipe = RECIPES.get(job.recipe)
        if recipe is None:
            raise JobError("error", f"recipe must be one of {sorted(RECIPES)}, got {job.recipe!r}")
        _check_rows(job)
        Runner(job.champion.onnx, job.signature)
        outcome = recipe(job, Bench(seeded(self._config, job), self._timer, self._cpu, progress))
        progress("done", 1.0, "promoted" if outcome.verdict.promoted else "rejected")
        return outcome


def seeded(config: RepairConfig, job: Job) -> RepairConfig:
    """Return the settings with the seed that the job's options name, if they do."""
    seed = job.options.get("seed", config.seed)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise JobError("error", f"option seed must be a whole number, got {seed!r}")
    return config.model_copy(update={"seed": seed})


def run_repair(job: Job, bench: Bench) -> Outcome:
    """Repair by arms."""
    from .arms import repair, split  # torch comes with it, which the int8 recipe does without

    repaired = repair(job, bench.config, bench.progress)
    chosen = repaired.chosen
    arms = tuple(candidate.said() for candidate in repaired.candidates)
    if repaired.kept:
        return Outcome(verdict=unchallenged(job, chosen.results, repaired.kept), arm=chosen.arm, arms=arms)
    bench.progress("gate", 0.85, f"{chosen.arm} against the champion")
    holdout = split(job.rows, bench.config)[1]
    verdict = judge(Trial(job.champion.onnx, chosen.onnx, job.signature, holdout), bench.config, bench.timer)
    if chosen.version is not None:
        return Outcome(verdict=verdict, arm=chosen.arm, arms=arms, recalled_version=chosen.version)
    made = Made(chosen.onnx, verdict, chosen.arm, holdout, trained_rows=repaired.trained_rows)
    return Outcome(verdict=verdict, arm=chosen.arm, arms=arms, onnx=chosen.onnx, manifest=_manifest(job, bench, made))


def unchallenged(job: Job, results: NDArray[np.float64], reason: str) -> GateVerdict:
    """Return the rejection where no candidate was made: the champion's `results` on the held-out rows stand for both."""
    metric, size_bytes = float(results.mean()), len(job.champion.onnx)
    return GateVerdict(
        promoted=False,
        reasons=(reason,),
        metric=METRICS[job.signature.task],
        candidate=metric,
        champion=metric,
        difference=0.0,
        interval=(0.0, 0.0),
        rows=len(results),
        churn=0.0,
        size_bytes=size_bytes,
        champion_size_bytes=size_bytes,
    )


def run_int8(job: Job, bench: Bench) -> Outcome:
    """Quantize to static int8; calibration rows are never held-out rows, and only rows that the champion can answer are either."""
    known = answered(Runner(job.champion.onnx, job.signature), job.rows, job.signature)
    rows = known.rows
    held = max(bench.config.min_holdout_rows, round(len(rows) * bench.config.holdout_share))
    if len(rows) <= held:
        why = "; ".join(known.notes)
        raise JobError("error", f"rows must be more than the {held} held out, got {len(rows)}" + (f" ({why})" if why else ""))
    border = len(rows) - held
    holdout = rows.take(slice(border, len(rows)))
    calibration = _calibration_rows(rows.features[:border])
    bench.progress("quantize", 0.2, f"calibrating on {len(calibration)} rows")
    quantized = quantize_int8(job.champion.onnx, calibration, bench.cpu)
    bench.progress("gate", 0.6, "int8 against the champion")
    trial = Trial(job.champion.onnx, quantized.onnx, job.signature, holdout, kind="compression", notes=known.notes)
    verdict = judge(trial, bench.config, bench.timer)
    arms = (ArmResult(arm="int8", metric=verdict.candidate, rows=len(holdout)),)
    made = Made(quantized.onnx, verdict, "int8", holdout, trained_rows=0, calibration=quantized.ranges)
    return Outcome(verdict=verdict, arm="int8", arms=arms, onnx=quantized.onnx, manifest=_manifest(job, bench, made))


def _calibration_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the newest rows without gaps: one NaN makes a range NaN, also where a later layer swallows it."""
    whole = features[np.isfinite(features).all(axis=1)]
    return (whole if len(whole) else features)[-_CALIBRATION_ROWS:]


RECIPES: dict[str, Callable[[Job, Bench], Outcome]] = {"repair": run_repair, "int8": run_int8}


def _check_rows(job: Job) -> None:
    features, labels = job.rows.features, job.rows.labels
    if features.ndim != 2 or features.shape != (len(labels), len(job.signature.features)):
        wanted = [len(labels), len(job.signature.features)]
        raise JobError("error", f"features must have shape {wanted}, got {list(features.shape)}")
    for rows in (job.rows, job.old_rows):
        if rows is None or not len(rows):
            continue
        if job.signature.task == "classification":
            low, high = int(rows.labels.min()), int(rows.labels.max())
            if low < 0 or high >= len(job.signature.classes):
                raise JobError("error", f"labels must be class indices 0 to {len(job.signature.classes) - 1}, got {low} to {high}")
        elif not np.isfinite(rows.labels).all():
            raise JobError("error", "labels must be finite numbers")


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


def _manifest(job: Job, bench: Bench, made: Made) -> Manifest:
    try:
        runner = Runner(made.onnx, job.signature)
    except ArtifactInvalid as problem:
        raise JobError("error", f"candidate must load: {problem}") from problem
    seconds = latencies_s((runner, runner), made.holdout.features[:1], bench.timer, rounds=10)[0]
    cpu: dict[str, Scalar] = {
        "vnni": bench.cpu.has_vnni,
        "avx512f": "avx512f" in bench.cpu.flags,
        "avx2": "avx2" in bench.cpu.flags,
        "threads": 1,
    }
    fields: dict[str, Any] = {"calibration": made.calibration, "verdict": made.verdict, "rows": job.row_range}
    return Manifest(
        digest=digest_of(made.onnx),
        size_bytes=len(made.onnx),
        model=job.model,
        signature=job.signature,
        recipe=job.recipe,
        arm=made.arm,
        job_id=job.job_id,
        parent_digest=job.champion.digest,
        parent_version=job.champion.version,
        trained_rows=made.trained_rows,
        holdout_rows=len(made.holdout),
        rows_digest=rows_digest(job.rows),
        seed=bench.config.seed,
        options=dict(job.options),
        packages=package_versions(),
        cpu=cpu,
        latency_ms=round(seconds * 1000, 6),
        **fields,
    )
