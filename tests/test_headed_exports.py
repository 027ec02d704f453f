"""Whatever exporters write is repaired behind its scores: trees, pipelines, vectors, neighbours, every one of the stored files."""

import numpy as np
import pytest

from driftloop.compression.adoption import adopt
from driftloop.compression.cpu import Cpu
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import JobData
from driftloop.compression.onnx_file import load_onnx, signature_of
from driftloop.compression.steps import run_step
from driftloop.compression.track import Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.recipes import Affine, Correct, Step
from driftloop.schemas.rows import Rows
from driftloop.tests.exported import export, names, signature_for


def champion(name: str) -> Workpiece:
    data = adopt(export(name)).onnx
    graph = signature_of(data)
    return Workpiece(data, signature_for(name, graph.input_name, graph.scores_name), version=1)


def rows_after_a_change(piece: Workpiece, count: int, seed: int) -> Rows:
    """Rows of which each has the label that the champion gave to the next class, or to 3 less."""
    features = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    scores = piece.runner.scores(features)
    if piece.signature.task == "regression":
        labels = -2 * scores[:, 0].astype(np.float64) - 3
    else:
        labels = (scores.argmax(axis=1) + 1) % len(piece.signature.classes)
    return Rows(features, labels, np.arange(count))


@pytest.mark.parametrize("step", [Affine(), Correct(min_steps=60, epochs=1)], ids=["affine", "correct"])
@pytest.mark.parametrize("name", names())
def test_an_export_is_repaired_behind_its_scores(name: str, step: Step) -> None:
    piece = champion(name)
    rows, later = rows_after_a_change(piece, 200, 1), rows_after_a_change(piece, 500, 2)
    made = run_step(
        step, piece, JobContext(JobData(rows, rows, None, rows.features), piece, (), Cpu(), 0, Track(lambda news: None))
    )
    before, after = piece.results(later).mean(), made.results(later).mean()
    assert after > before + 0.3 if piece.signature.task == "classification" else after > 0.5 * before
    old, new = piece.model, load_onnx(made.onnx)
    assert list(new.opset_import) == list(old.opset_import)
    kept = {(node.domain, node.op_type, *node.input) for node in new.graph.node}
    assert {(node.domain, node.op_type, *node.input) for node in old.graph.node} <= kept
