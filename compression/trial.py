"""The trial of a model file: strict checks, a session, one run of one row and one of several; what was seen, in numbers.

A hostile file may end the process, fill its memory or never come back: streams/model_trial.py runs this in a child under limits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import ArtifactInvalid
from ..schemas.plain_text import one_line
from .onnx_file import graph_signature, load_onnx
from .runtime import open_session
from .seen import ROWS, OutputSeen, Seen
from .squash import are_chances

SEED = 0


def try_model(data: bytes) -> Seen:
    """Return what the model in `data` is and does; raises ArtifactInvalid, ModelUnsupported."""
    graph = graph_signature(load_onnx(data))
    session = open_session(data)
    names = list(graph.output_names)
    runs: list[list[NDArray[np.generic]]] = []
    for count in ROWS:
        rows = np.random.default_rng(SEED).normal(size=(count, *graph.input_shape)).astype(np.float32)
        # Some graphs are at home between 0 and 1, some need a row without signs.
        rows[count // 2 :] = np.abs(rows[count // 2 :])
        try:
            runs.append([np.asarray(result) for result in session.run(names, {graph.input_name: rows})])
        except Exception as problem:  # onnxruntime's exceptions share no base class but this
            raise ArtifactInvalid(f"model must run on a batch of {count} rows: {one_line(problem)}") from problem
    return Seen(graph, tuple(_seen(name, [run[at] for run in runs]) for at, name in enumerate(names)))


def _seen(name: str, results: list[NDArray[np.generic]]) -> OutputSeen:
    is_number = all(result.dtype.kind in "fiub" for result in results)
    finite = is_number and any(
        bool(np.isfinite(result.astype(np.float64).reshape(len(result), -1)).all(axis=1).any())
        for result in results
        if result.ndim and result.size
    )
    rows = tuple(len(result) if result.ndim else 0 for result in results)
    chances = finite and all(result.ndim for result in results) and are_chances(results)
    return OutputSeen(name, rows, tuple(result.size for result in results), is_number, finite, chances)
