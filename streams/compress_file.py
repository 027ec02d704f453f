"""Compress a model file with no broker: the same recipe and gate as a job's, rows from a table."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..compression.job import Job, ModelVersion
from ..compression.onnx_file import signature_of
from ..compression.optimizer import Optimizer
from ..schemas.errors import Conflict, NotFound
from ..schemas.events import GateVerdict, Signature
from ..schemas.rows import Rows
from ..settings import Settings
from .table_file import Table, read_table, typed_cells
from .this_cpu import this_cpu

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
    if not config.model.is_file():
        raise NotFound(f"model file must exist ({config.model})")
    onnx = config.model.read_bytes()
    table = read_table(config.rows, config.label)
    signature, rows = _fit(onnx, table, config)
    digest = hashlib.sha256(onnx).hexdigest()
    name = config.model.stem
    job = Job(f"compress-{digest[:12]}", name, config.recipe, ModelVersion(1, digest, onnx), signature, rows)
    outcome = Optimizer(settings.repair, time.perf_counter, this_cpu()).run(job, progress)
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


def _fit(onnx: bytes, table: Table, config: CompressConfig) -> tuple[Signature, Rows]:
    graph = signature_of(onnx)
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
        output_name=graph.output_names[-1],
    )
    return signature, Rows(table.features, labels, np.arange(len(table), dtype=np.int64))
