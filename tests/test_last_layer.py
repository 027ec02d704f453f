"""A regression is trained in a unit near 1 wherever its last layer can take that, and is in its labels' unit again afterwards."""

import numpy as np
import pytest
import torch
from onnx import helper

from driftloop.compression.cpu import Cpu
from driftloop.compression.importer import import_onnx
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import JobData
from driftloop.compression.last_layer import last_layer
from driftloop.compression.steps import run_step
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.recipes import Finetune, Reset, Step
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import bytes_of, signature

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "w0": RANDOM.normal(size=(4, 32)).astype(np.float32),
    "b0": RANDOM.normal(size=32).astype(np.float32),
    "w1": RANDOM.normal(size=(32, 1)).astype(np.float32),
    "b1": np.array([0.5], np.float32),
    "number": np.array([4.0], np.float32),
    "other": np.array([7.0], np.float32),
    "flat": np.array([-1], np.int64),
}


def net(*tail: tuple[str, list[str]], last: str = "Gemm") -> bytes:
    """Two layers, and `tail` behind them: operators with the inputs beside the value, which stands at `x`."""
    nodes = [helper.make_node("Gemm", ["features", "w0", "b0"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    if last == "Gemm":
        nodes.append(helper.make_node("Gemm", ["b", "w1", "b1"], ["t0"]))
    else:
        nodes += [helper.make_node("MatMul", ["b", "w1"], ["c"]), helper.make_node("Add", ["c", "b1"], ["t0"])]
    for at, (kind, inputs) in enumerate(tail):
        given = [f"t{at}" if name == "x" else name for name in inputs]
        nodes.append(helper.make_node(kind, given, [f"t{at + 1}"]))
    nodes[-1].output[0] = "scores"
    used = {name for node in nodes for name in node.input}
    return bytes_of(nodes, {name: tensor for name, tensor in WEIGHTS.items() if name in used})


LINES = {
    "nothing": net(),
    "bias apart": net(last="MatMul"),
    "scaled and shifted": net(("Mul", ["x", "number"]), ("Add", ["x", "other"])),
    "turned": net(("Sub", ["other", "x"]), ("Div", ["x", "number"])),
    "flat": net(("Sub", ["x", "other"]), ("Mul", ["number", "x"]), ("Reshape", ["x", "flat"])),
}
NO_LINES = {
    "a curve": net(("Exp", ["x"])),
    "divided by": net(("Div", ["number", "x"])),
    "twice": net(("Mul", ["x", "x"])),
    "cut": net(("Relu", ["x"])),
}


@pytest.mark.parametrize("name", LINES)
def test_a_rescaled_model_gives_the_line_of_what_it_gave(name: str) -> None:
    imported = import_onnx(LINES[name])
    rows = torch.randn(20, 4)
    before = imported.module(rows).detach()
    found = last_layer(imported.trunk)
    assert found is not None
    found.rescale(-3.0, 11.0)
    assert torch.allclose(imported.module(rows), -3 * before + 11, atol=1e-3)
    found.rescale(-1 / 3, 11 / 3)
    assert torch.allclose(imported.module(rows), before, atol=1e-3)


@pytest.mark.parametrize("name", NO_LINES)
def test_what_ends_in_no_line_is_left_as_it_is(name: str) -> None:
    assert last_layer(import_onnx(NO_LINES[name]).trunk) is None
    assert last_layer(torch.nn.Linear(3, 1)) is None


def prices(count: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    labels = 250_000 + 40_000 * (features[:, 0] - np.abs(features[:, 1])) + 2_000 * rng.normal(size=count)
    return Rows(features, labels, np.arange(count))


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("steps", [(Finetune(),), (Reset(), Finetune())], ids=["finetune", "scratch"])
def test_labels_of_any_size_are_learnt(name: str, steps: tuple[Step, ...]) -> None:
    piece = Workpiece(LINES[name], signature(4, 0), version=1)
    rows, later = prices(225, 1), prices(2000, 2)
    news: list[Progress] = []
    context = JobContext(JobData(rows, rows, None, rows.features), piece, (), Cpu(), 0, Track(news.append))
    made = piece
    for step in steps:
        made = run_step(step, made, context)
    guess = -np.abs(later.labels - rows.labels.mean()).mean()
    assert made.results(later).mean() > 0.5 * guess
    told = [one.scalars["metric"] for one in news if one.scalars]
    assert told[-1] == pytest.approx(made.results(rows).mean(), rel=0.3)


def test_labels_that_are_all_the_same_are_no_unit() -> None:
    piece = Workpiece(LINES["nothing"], signature(4, 0), version=1)
    rows = prices(225, 1)
    rows.labels[:] = 3.0
    context = JobContext(JobData(rows, rows, None, rows.features), piece, (), Cpu(), 0, Track(lambda news: None))
    for step in (Reset(), Finetune(epochs=2, min_steps=0)):
        assert np.isfinite(run_step(step, piece, context).runner.scores(rows.features)).all()
