"""Compress a model file with no broker: the same recipe, gate and child process as a job's, rows from a table."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from ..compression.job import Job, ModelVersion, Outcome
from ..compression.job_folder import read_error, read_outcome, write_job
from ..compression.row_counts import check_enough
from ..compression.seen import ROWS, Adopted, Seen, check_seen
from ..compression.track import Progress, Tell
from ..schemas.errors import Conflict, InputInvalid
from ..schemas.recipes import Recipe
from ..schemas.verdicts import GateVerdict
from ..settings import Settings
from .child_process import ChildProcess, Limits
from .compress_fit import Interface, Wish, fit
from .job_run import POLL_S, job_error, progress_of
from .model_trial import tried
from .publishing import adopt_model
from .warm_child import CHILD_MODULE


@dataclass(frozen=True, slots=True)
class CompressConfig:
    """What to compress, with which rows, and where to."""

    model: Path
    recipe: Recipe
    rows: Wish
    out: Path


def compress_file(settings: Settings, config: CompressConfig, tell: Tell) -> dict[str, Any]:
    """Return the verdict as a plain object; model and manifest are written to `out` where the gate lets them pass.

    Raises NotFound for a missing file, ArtifactInvalid for a bad model, Conflict where rows and model do not fit together.
    """
    model = adopt_model(settings, config.model)
    onnx = model.onnx
    if config.out.exists() and not config.out.is_dir():
        raise InputInvalid(f"output must be a folder, got a file ({config.out}); --out names another")
    seen = tried(onnx, settings.models)
    fitted = fit(_interface(seen, model), config.rows)
    model.check_classes(fitted.signature.classes)
    check_seen(seen, fitted.signature)
    check_enough(len(fitted.rows), config.recipe, settings.repair)
    digest = hashlib.sha256(onnx).hexdigest()
    name = config.model.stem
    job = Job(f"compress-{digest[:12]}", name, config.recipe, ModelVersion(1, digest, onnx), fitted.signature, fitted.rows)
    outcome = _run(settings, job, tell)
    verdict = outcome.verdict
    _check_order(verdict, config)
    told: dict[str, Any] = {"promoted": verdict.promoted, "reasons": list(verdict.reasons), "arm": outcome.arm, "model": None}
    told["notes"] = [*model.notes, *fitted.notes, *verdict.notes]
    if verdict.promoted and outcome.onnx is not None:
        told["model"] = str(config.out / f"{name}.{config.recipe.name}.onnx")
        config.out.mkdir(parents=True, exist_ok=True)
        Path(told["model"]).write_bytes(outcome.onnx)
        if outcome.manifest is not None:
            text = msgspec.json.format(msgspec.json.encode(outcome.manifest), indent=2)
            (config.out / f"{name}.{config.recipe.name}.json").write_bytes(text)
    return told | {"verdict": msgspec.to_builtins(verdict)}


def verdict_table(verdict: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return lines of (what, before, after) for people."""
    known = msgspec.convert(verdict, GateVerdict)
    lines = [
        (known.metric, f"{known.champion:.4f}", f"{known.candidate:.4f}"),
        ("size_bytes", known.champion_size_bytes, known.size_bytes),
    ]
    if known.latency_ratio is not None:
        lines.append(("latency", "1.00", f"{known.latency_ratio:.2f}"))
    return [*lines, ("rows", "", known.rows), ("churn", "", f"{known.churn:.4f}")]


def _run(settings: Settings, job: Job, tell: Tell) -> Outcome:
    """Return the outcome of a job that runs in a child process under the limits of a worker's; raises JobError."""
    if job.recipe.needs_torch and find_spec("torch") is None:
        raise ModuleNotFoundError(f"torch must be installed for recipe {job.recipe.name}", name="torch")
    limits = Limits(timeout_s=settings.worker.job_timeout_s, memory_bytes=settings.worker.job_memory_bytes)
    with tempfile.TemporaryDirectory(prefix="driftloop-compress-") as name:
        folder = Path(name)
        write_job(folder, job, settings.repair)
        child = ChildProcess(CHILD_MODULE, [str(folder)], folder, limits)
        try:
            while True:
                ended = child.wait(POLL_S)
                for line in child.take_lines():
                    tell(progress_of(line, Progress(step="", fraction=0.0)))
                if ended is not None:
                    break
        finally:
            child.stop()
        if ended.reason != "ok":
            raise job_error(ended, read_error(folder), limits.timeout_s)
        return read_outcome(folder)


def _interface(seen: Seen, model: Adopted) -> Interface:
    graph = seen.graph
    found = next(output for output in seen.outputs if output.name == graph.scores_name)
    sigmoid = graph.output(graph.scores_name).sigmoid
    texts = tuple(model.categories.get(name, ()) for name in model.features)
    return Interface(
        graph.feature_count,
        found.numbers[-1] // ROWS[-1],
        graph.input_name,
        graph.scores_name,
        sigmoid,
        model.classes,
        model.features,
        texts,
    )


def _check_order(verdict: GateVerdict, config: CompressConfig) -> None:
    """Raise Conflict where the order of the classes was guessed and another one fits clearly better."""
    better = [note for note in verdict.notes if "--classes" in note]
    if better and not config.rows.classes:
        raise Conflict(f"classes must be in the order of the model's scores, got sorted labels; {better[0]} ({config.rows.path})")
