"""The correction learns what the champion lacks from few rows, whatever the champion is, and takes the gaps it takes."""

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.cpu import Cpu
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import JobData
from driftloop.compression.onnx_file import load_onnx
from driftloop.compression.quantize import quantize_int8
from driftloop.compression.small_model import train_small_model
from driftloop.compression.steps import run_step
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.recipes import Correct
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import bytes_of, signature, turning_rows


def moved(count: int, seed: int) -> Rows:
    """Rows of a concept that no map of the old scores gives."""
    rows = turning_rows(count, seed)
    features = rows.features
    labels = (features[:, 3] - features[:, 0] > 0) ^ (np.random.default_rng(seed).random(count) < 0.05)
    return Rows(features, labels.astype(np.int64), rows.offsets)


def numbers(count: int, seed: int, *, after: bool = False) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    labels = 5000 + 300 * (np.abs(features[:, 0]) + features[:, 1] * (-1 if after else 1)) + 20 * rng.normal(size=count)
    return Rows(features, labels, np.arange(count))


@pytest.fixture(scope="module")
def champion() -> Workpiece:
    return Workpiece(train_small_model(turning_rows(1000, 1), signature(4, 2)), signature(4, 2), version=1)


def corrected(piece: Workpiece, rows: Rows, step: Correct | None = None, news: list[Progress] | None = None) -> Workpiece:
    told = [] if news is None else news
    data = JobData(rows, rows, None, rows.features)
    context = JobContext(data, piece, (), Cpu(), 0, Track(told.append))
    return run_step(Correct() if step is None else step, piece, context)


@pytest.mark.parametrize("int8", [False, True])
def test_a_new_concept_is_learnt_behind_a_frozen_champion(champion: Workpiece, int8: bool) -> None:
    piece = champion
    if int8:
        piece = champion.changed(quantize_int8(champion.onnx, turning_rows(200, 4).features, Cpu()).onnx)
    later = moved(3000, 3)
    made = corrected(piece, moved(225, 2))
    assert piece.results(later).mean() < 0.6
    assert made.results(later).mean() > 0.85
    old = {(node.op_type, *node.input) for node in piece.model.graph.node}
    assert old <= {(node.op_type, *node.input) for node in load_onnx(made.onnx).graph.node}


def test_numbers_are_corrected_in_their_own_unit() -> None:
    piece = Workpiece(train_small_model(numbers(2000, 1), signature(4, 0)), signature(4, 0), version=1)
    later = numbers(3000, 3, after=True)
    before, after = piece.results(later).mean(), corrected(piece, numbers(225, 2, after=True)).results(later).mean()
    assert before < -300
    assert after > -110


def test_missing_and_infinite_features_give_finite_scores_where_the_champion_does(champion: Workpiece) -> None:
    rows = moved(225, 2)
    rows.features[::4, 2] = np.nan
    rows.features[:, 1] = np.nan
    made = corrected(champion, rows)
    later = moved(2000, 3)
    later.features[::2, 2] = np.nan
    later.features[:, 1] = np.nan
    assert np.isfinite(made.runner.scores(later.features)).all()
    assert made.results(later).mean() > 0.8


def test_infinite_features_are_far_and_no_more() -> None:
    """A champion that takes them: it looks at one feature and cuts it."""
    nodes = [
        helper.make_node("MatMul", ["features", "pick"], ["a"]),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["scores"]),
    ]
    tensors = {"pick": np.array([[1.0], [0], [0], [0]], np.float32), "low": np.float32(-3), "high": np.float32(3)}
    piece = Workpiece(bytes_of(nodes, tensors), signature(4, 2))
    rows = moved(225, 2)
    rows.features[::5, 0] = np.inf
    sound = np.isfinite(piece.runner.scores(rows.features)).all(axis=1)
    made = corrected(piece, rows)
    assert made.trained_rows == sound.sum() >= 180
    assert (np.isfinite(made.runner.scores(rows.features)).all(axis=1) == sound).all()


def test_logits_far_beyond_reach_are_corrected_too() -> None:
    nodes = [helper.make_node("MatMul", ["features", "w"], ["scores"])]
    piece = Workpiece(bytes_of(nodes, {"w": np.array([[-500.0, 500], [0, 0], [0, 0], [0, 0]], np.float32)}), signature(4, 2))
    later = moved(3000, 3)
    assert piece.results(later).mean() < 0.4
    assert corrected(piece, moved(225, 2)).results(later).mean() > 0.85


def test_the_first_step_begins_at_the_champion(champion: Workpiece) -> None:
    made = corrected(champion, turning_rows(225, 2), Correct(epochs=1, min_steps=0, learning_rate=1e-9))
    rows = turning_rows(500, 3)
    assert np.allclose(made.runner.scores(rows.features), champion.runner.scores(rows.features), atol=1e-3)


def test_more_members_are_one_net_and_tell_one_curve(champion: Workpiece) -> None:
    news: list[Progress] = []
    made = corrected(champion, moved(225, 2), Correct(members=2, hidden=8, epochs=3, min_steps=0), news)
    assert sum(node.op_type == "Gemm" for node in made.model.graph.node) == 3 + 2
    widths = {tuple(tensor.dims) for tensor in made.model.graph.initializer}
    assert {(4, 16), (2, 16), (16, 2)} <= widths
    curve = [one for one in news if one.scalars]
    assert [one.at for one in curve] == [4, 8, 12]
    assert all(0 <= one.scalars["metric"] <= 1 for one in curve)
