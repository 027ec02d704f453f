"""Compress a model file with no broker: the same recipe, gate and child process as a job's, rows from a table."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..compression.job import Job, ModelVersion, Outcome
from ..compression.job_folder import ProgressLine, read_error, read_outcome, write_job
from ..compression.seen import check_seen
from ..schemas.errors import Conflict
from ..schemas.events import GateVerdict, Signature
from ..schemas.rows import Rows
from ..settings import Settings
from .child_process import ChildProcess, Limits
from .job_run import CHILD_MODULE, POLL_S, job_error, progress_of
from .model_trial import tried
from .publishing import read_model
from .table_file import Table, read_table, typed_cells

Progress = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class CompressConfig:
    """Say what to compress, with which rows, and where to; `classes` by commas in the order of the scores, empty: sorted labels."""

    model: Path
    recipe: str
    rows: str
    label: str
    out: Path
    classes: str = ""


def compress_file(settings: Settings, config: CompressConfig, progress: Progress) -> dict[str, Any]:
    """Return the verdict as a plain object; model and manifest are written to `out` where the gate lets them pass.

    Raises NotFound for a missing file, ArtifactInvalid for a bad model, Conflict where rows and model do not fit together.
    """
    onnx = read_model(settings, config.model)
    table = read_table(config.rows, config.label)
    signature, rows = _fit(settings, onnx, table, config)
    digest = hashlib.sha256(onnx).hexdigest()
    name = config.model.stem
    job = Job(f"compress-{digest[:12]}", name, config.recipe, ModelVersion(1, digest, onnx), signature, rows)
    outcome = _run(settings, job, progress)
    verdict = outcome.verdict
    told: dict[str, Any] = {"promoted": verdict.promoted, "reasons": list(verdict.reasons), "arm": outcome.arm, "model": None}
    if verdict.promoted and outcome.onnx is not None:
        told["model"] = str(config.out / f"{name}.{config.recipe}.onnx")
        config.out.mkdir(parents=True, exist_ok=True)
        Path(told["model"]).write_bytes(outcome.onnx)
        if outcome.manifest is not None:
            text = msgspec.json.format(msgspec.json.encode(outcome.manifest), indent=2)
            (config.out / f"{name}.{config.recipe}.json").write_bytes(text)
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


def _run(settings: Settings, job: Job, progress: Progress) -> Outcome:
    """Return the outcome of a job that runs in a child process under the limits of a worker's; raises JobError."""
    if job.recipe != "int8" and find_spec("torch") is None:
        raise ModuleNotFoundError("torch must be installed to repair", name="torch")
    limits = Limits(timeout_s=settings.worker.job_timeout_s, memory_bytes=settings.worker.job_memory_bytes)
    with tempfile.TemporaryDirectory(prefix="driftloop-compress-") as name:
        folder = Path(name)
        write_job(folder, job, settings.repair)
        child = ChildProcess(CHILD_MODULE, [str(folder)], folder, limits)
        try:
            while True:
                ended = child.wait(POLL_S)
                for line in child.take_lines():
                    said = progress_of(line, ProgressLine(step="", fraction=0.0))
                    progress(said.step, said.fraction, said.message)
                if ended is not None:
                    break
        finally:
            child.stop()
        if ended.reason != "ok":
            raise job_error(ended, read_error(folder), limits.timeout_s)
        return read_outcome(folder)


def _fit(settings: Settings, onnx: bytes, table: Table, config: CompressConfig) -> tuple[Signature, Rows]:
    seen = tried(onnx, settings.models)
    graph = seen.graph
    if len(table.names) != graph.feature_count:
        raise Conflict(
            f"rows must have the model's {graph.feature_count} features beside {config.label!r}, got {len(table.names)} ({config.rows})"
        )
    classes = tuple(typed_cells([cell for cell in config.classes.split(",") if cell.strip()])) if config.classes else table.classes
    unknown = [value for value in table.classes if value not in classes]
    if unknown:
        raise Conflict(f"labels must be of the classes {list(classes)}, got {unknown[0]!r} ({config.rows})")
    labels = np.array([classes.index(value) for value in table.classes], np.int64)[table.labels]
    signature = Signature(
        task="classification",
        features=table.names,
        classes=classes,
        input_name=graph.input_name,
        output_name=graph.scores_name,
    )
    check_seen(seen, signature)
    return signature, Rows(table.features, labels, np.arange(len(table), dtype=np.int64))
