"""Every stored export as a champion: which steps take it, which refuse it by name, and a repair that goes on with those that can."""

from functools import cache

import numpy as np
import pytest

from driftloop.compression.adoption import adopt
from driftloop.compression.arms import run_arms
from driftloop.compression.cpu import Cpu
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import cut
from driftloop.compression.onnx_file import signature_of
from driftloop.compression.steps import run_step
from driftloop.compression.store import digest_of
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import ModelUnsupported
from driftloop.schemas.recipes import BUILT_IN, Affine, Arm, Finetune, Prune, Quantize, Recipe, Reset, Step
from driftloop.schemas.rows import Rows
from driftloop.tests.exported import classes_of, export, names, signature_for
from driftloop.tests.onnx_graphs import turning_rows

TRAINED = ("sk_net.two", "sk_sgd.two")
"""Networks once the label beside their scores is out; the others are of operators that no step trains."""
QUANTIZED = (*TRAINED, "sk_pca.two")
REFUSED = {
    Finetune: "cannot be trained",
    Reset: "cannot be trained",
    Prune: "cannot be trained|must have a layer before the last|torch-pruning",
    Quantize: "must have a Gemm, MatMul, Conv node to quantize",
}


@cache
def champion(name: str) -> Workpiece:
    data = adopt(export(name)).onnx
    graph = signature_of(data)
    return Workpiece(data, signature_for(name, graph.input_name, graph.scores_name), version=2)


def rows_for(name: str, count: int) -> Rows:
    rows = turning_rows(count, 3)
    turn = rows.features[:, 0] + rows.features[:, 1] * rows.features[:, 2]
    labels = {0: 5 - 2.0 * turn, 2: (turn < 0).astype(np.int64), 3: np.digitize(-turn, [-0.5, 0.5])}
    return Rows(rows.features, labels[len(classes_of(name))], rows.offsets)


def context(name: str, recipe: Recipe, told: list[Progress]) -> JobContext:
    piece = champion(name)
    job = Job("j", "m", recipe, ModelVersion(2, digest_of(piece.onnx), piece.onnx), piece.signature, rows_for(name, 300))
    return JobContext(cut(job, piece, RepairConfig()), piece, (), Cpu(), 0, Track(told.append))


@pytest.mark.parametrize("name", names())
def test_steps_that_cannot_take_a_model_refuse_it_by_name(name: str) -> None:
    around = context(name, BUILT_IN["repair"], [])
    for step in (Finetune(epochs=1), Reset(), Quantize()):
        if name in (QUANTIZED if isinstance(step, Quantize) else TRAINED):
            made = run_step(step, champion(name), around)
            assert np.isfinite(made.runner.scores(rows_for(name, 20).features)).all()
            continue
        with pytest.raises(ModelUnsupported, match=REFUSED[type(step)]):
            run_step(step, champion(name), around)


@pytest.mark.parametrize("name", names())
def test_a_map_of_the_scores_takes_any_model(name: str) -> None:
    around = context(name, BUILT_IN["repair"], [])
    made = run_step(Affine(), champion(name), around)
    rows = rows_for(name, 200)
    assert made.results(rows).mean() > champion(name).results(rows).mean()


@pytest.mark.parametrize("name", ["lgb.two", "xgb_three.three", "cat_number.number", "sk_svc.two"])
def test_a_repair_goes_on_with_the_arms_that_can(name: str) -> None:
    steps: dict[str, Step] = {"finetune": Finetune(epochs=1), "affine": Affine(), "scratch": Reset(), "small": Quantize()}
    arms: dict[str, Arm] = {arm: (step,) for arm, step in steps.items()}
    told: list[Progress] = []
    choice = run_arms(Recipe(name="mixed", arms=arms, gate=BUILT_IN["repair"].gate), context(name, BUILT_IN["repair"], told), 20)
    assert [candidate.arm for candidate in choice.candidates] == ["affine"]
    failed = {news.step for news in told if "gave nothing" in news.message}
    assert failed == {"finetune", "scratch", "small"}
