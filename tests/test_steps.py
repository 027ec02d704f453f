"""One contract for every step: finite, as torch says, the same by the same seed, refused by name; and no step type without one."""

from typing import get_args

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.cpu import Cpu
from driftloop.compression.early_exit import RULES
from driftloop.compression.export import check_parity
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_context import JobContext, earlier_versions
from driftloop.compression.job_data import cut
from driftloop.compression.small_model import train_small_model
from driftloop.compression.steps import STEPS, run_step
from driftloop.compression.store import digest_of
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import DriftloopError, ModelUnsupported
from driftloop.schemas.recipes import (
    BUILT_IN,
    STEP_TYPES,
    Affine,
    Correct,
    Exit,
    Finetune,
    Prune,
    Quantize,
    Recall,
    Refit,
    Reset,
    Step,
)
from driftloop.tests.onnx_graphs import bytes_of, exported_trees, signature, turning_rows

SIGNATURE = signature(4, 2)
SAMPLES = (
    Recall(),
    Recall(version=1),
    Affine(),
    Correct(epochs=2, min_steps=0),
    Refit(),
    Refit(decay=0.5),
    Reset(),
    Finetune(epochs=2, min_steps=0),
    Finetune(epochs=1, old_weight=0.3),
    Prune(),
    Quantize(),
)
SEEDED = (Reset, Finetune, Correct)


@pytest.fixture(scope="module")
def nets() -> tuple[bytes, bytes]:
    return tuple(train_small_model(turning_rows(400, seed), SIGNATURE) for seed in (1, 2))  # type: ignore[return-value]


@pytest.fixture
def models(request: pytest.FixtureRequest, nets: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """A champion and an earlier version that the step can change."""
    called = getattr(request.node, "callspec", None)
    if called is not None and isinstance(called.params.get("step"), Refit):
        return exported_trees("tree_lightgbm_two"), exported_trees("tree_histogram_two")
    return nets


@pytest.fixture(autouse=True)
def _needs_its_package(request: pytest.FixtureRequest) -> None:
    """Skip the step that needs a package that is not here."""
    called = getattr(request.node, "callspec", None)
    if called is not None and isinstance(called.params.get("step"), Prune):
        pytest.importorskip("torch_pruning")


def world(models: tuple[bytes, bytes], seed: int = 0, news: list[Progress] | None = None) -> tuple[Workpiece, JobContext]:
    champion, earlier = (ModelVersion(number, digest_of(data), data) for number, data in zip((2, 1), models, strict=True))
    job = Job("j", "m", BUILT_IN["repair"], champion, SIGNATURE, turning_rows(200, 3), turning_rows(100, 4), (earlier,))
    piece = Workpiece(champion.onnx, SIGNATURE, version=2)
    told = [] if news is None else news
    data = cut(job, piece, RepairConfig())
    return piece, JobContext(data, piece, earlier_versions(job), Cpu(), seed, Track(told.append))


def test_every_step_type_and_every_exit_has_an_implementation_and_a_sample() -> None:
    assert set(STEPS) == set(STEP_TYPES.values()) == {type(step) for step in SAMPLES}
    assert set(RULES) == set(get_args(Exit))


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_what_a_step_makes_is_finite_and_as_torch_says(step: Step, models: tuple[bytes, bytes]) -> None:
    piece, context = world(models)
    made = run_step(step, piece, context)
    rows = turning_rows(300, 5).features
    assert np.isfinite(made.runner.scores(rows)).all()
    assert made.signature == SIGNATURE
    try:
        twin = made.trainable.module
    except ModelUnsupported:
        assert isinstance(step, Quantize | Refit)
        return
    assert check_parity(made.onnx, twin, rows) <= 1e-4


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_a_step_gives_the_same_by_the_same_seed(step: Step, models: tuple[bytes, bytes]) -> None:
    digests = []
    for seed in (1, 1, 2):
        piece, context = world(models, seed)
        before = piece.onnx
        digests.append(run_step(step, piece, context).digest)
        assert piece.onnx == before
        assert run_step(step, piece, context).digest == digests[-1], "the workpiece is as it was"
    assert digests[0] == digests[1]
    assert (digests[1] != digests[2]) == isinstance(step, SEEDED)


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_held_out_rows_reach_no_step(step: Step, models: tuple[bytes, bytes]) -> None:
    piece, context = world(models)
    digest = run_step(step, piece, context).digest
    context.data.holdout.features[:] = 7.0
    context.data.holdout.labels[:] = 0
    assert run_step(step, *world(models)).digest == digest
    assert run_step(step, piece, context).digest == digest


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_a_step_that_does_not_fit_is_refused_by_name(step: Step, models: tuple[bytes, bytes]) -> None:
    # Nothing to train, nothing to quantize, and never a score that is a number.
    nodes = [("Abs", "features", "a"), ("Neg", "a", "b"), ("Sqrt", "b", "scores")]
    weightless = bytes_of([helper.make_node(kind, [given], [made]) for kind, given, made in nodes])
    plain = Workpiece(weightless, signature(4, 4))
    _, context = world(models)
    lonely = JobContext(context.data, plain, (), Cpu(), 0, context.track)
    with pytest.raises(DriftloopError, match=r"recall\.version|can be trained|to quantize|must give finite scores|can be refitted"):
        run_step(step, plain, lonely)


def test_training_tells_its_curve(models: tuple[bytes, bytes]) -> None:
    news: list[Progress] = []
    piece, context = world(models, news=news)
    run_step(Finetune(epochs=3, min_steps=0, batch_rows=32, enough_loss=0.0), piece, context)
    curve = [one for one in news if one.scalars]
    assert [one.at for one in curve] == [5, 10, 15]
    assert [one.fraction for one in curve] == [0.3333, 0.6667, 1.0]
    assert all(set(one.scalars) == {"loss", "metric", "learning_rate"} for one in curve)
    assert all(0.5 < one.scalars["metric"] <= 1.0 for one in curve)
    assert [one.scalars["learning_rate"] for one in curve] == sorted((one.scalars["learning_rate"] for one in curve), reverse=True)


def test_early_stopping_reads_the_numbers_that_are_told(models: tuple[bytes, bytes]) -> None:
    news: list[Progress] = []
    piece, context = world(models, news=news)
    run_step(Finetune(epochs=50, enough_loss=0.2), piece, context)
    losses = [one.scalars["loss"] for one in news if one.scalars]
    assert len(losses) < 50
    assert losses[-1] < 0.2
    assert all(loss >= 0.2 for loss in losses[:-1])
