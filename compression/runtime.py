"""A model as serving runs it: onnxruntime on one thread, scores for rows, and what the metrics make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..schemas.errors import ArtifactInvalid
from ..schemas.events import Signature
from ..schemas.plain_text import one_line
from ..schemas.rows import Rows
from .graph_signature import GraphSignature, check_columns, check_signature
from .onnx_file import graph_signature, load_onnx

Floats = NDArray[np.float32]
_CHUNK_ROWS = 4096


class Runner:
    """One model, ready to run; raises ArtifactInvalid where the bytes are no model of this signature.

    `loaded`: the names and shapes of a model that load_onnx took already.
    """

    def __init__(self, data: bytes, signature: Signature, loaded: GraphSignature | None = None) -> None:
        graph = graph_signature(load_onnx(data)) if loaded is None else loaded
        check_signature(graph, signature)
        self.signature = signature
        self.size_bytes = len(data)
        self._output = graph.output(signature.output_name)
        self._shape = graph.input_shape
        self._session = open_session(data)

    def scores(self, features: Floats) -> Floats:
        """Return float32 (n, columns) for features (n, k); raises ArtifactInvalid where the model fails on them."""
        parts = [self.run(features[start : start + _CHUNK_ROWS]) for start in range(0, len(features), _CHUNK_ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def raw(self, features: Floats) -> NDArray[Any]:
        """Return the output of one batch in one call, as serving would get it; raises ArtifactInvalid where the model fails on it."""
        rows = len(features)
        feed = {self.signature.input_name: np.ascontiguousarray(features, np.float32).reshape(rows, *self._shape)}
        try:
            return np.asarray(self._session.run([self.signature.output_name], feed)[0])
        except Exception as problem:  # onnxruntime's exceptions share no base class but this
            raise ArtifactInvalid(f"model must run on a batch of {rows} rows: {one_line(problem)}") from problem

    def run(self, features: Floats) -> Floats:
        """Return the scores of one batch in one call."""
        rows = len(features)
        found = self.raw(features).astype(np.float32, copy=False)
        columns = found.size // rows if rows else 1
        if found.size != rows * columns:
            raise ArtifactInvalid(f"model must give as many scores for each row, got {list(found.shape)} for {rows} rows")
        check_columns(self._output, columns, self.signature)
        scores = found.reshape(rows, columns)
        if self.signature.task == "classification" and columns == 1 and len(self.signature.classes) == 2:
            # One sigmoid is P(second class).
            return np.concatenate([1 - scores, scores], axis=1)
        return scores


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    """Return a session on one thread without spinning; raises ArtifactInvalid.

    onnxruntime reads files that the model names, from the folder of the process: only bytes that `load_onnx` took may come here.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime's exceptions share no base class but this
        raise ArtifactInvalid(f"model must load in onnxruntime {onnxruntime.__version__}: {one_line(problem)}") from problem


def outcomes(scores: Floats, rows: Rows, task: str) -> NDArray[np.float64]:
    """Return one number a row, higher is better: 1 or 0 for a class right or wrong, minus the absolute error for a number.

    A row whose scores are not finite is wrong; as a number it counts as ten times the widest label.
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(scores).all(axis=1))
    if task == "classification":
        right = np.where(finite[:, None], scores, 0).argmax(axis=1) == rows.labels
        return np.asarray(right & finite, np.float64)
    worst = 10 * float(np.abs(rows.labels).max(initial=1.0))
    return np.asarray(-np.where(finite, np.abs(scores[:, 0].astype(np.float64) - rows.labels), worst), np.float64)


def latencies_s(
    runners: tuple[Runner, Runner], features: Floats, timer: Callable[[], float], rounds: int = 60
) -> tuple[float, float]:
    """Return the median seconds of one call on `features` for both, measured in turns, each first every other round."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for runner in runners:
        for _ in range(5):
            runner.run(features)
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            start = timer()
            runners[which].run(features)
            seconds[which].append(timer() - start)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))
