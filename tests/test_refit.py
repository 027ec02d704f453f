"""The step refit: every stored ensemble learns a turned concept by its leaves alone, and what is none is refused with a cure."""

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from driftloop.compression import refit as refit_module
from driftloop.compression.adoption import adopt
from driftloop.compression.arms import run_arms
from driftloop.compression.cpu import Cpu
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import JobData
from driftloop.compression.refit import refit
from driftloop.compression.runtime import outcomes
from driftloop.compression.track import Track
from driftloop.compression.tree_ensemble import ensemble_place, read_ensemble
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.errors import JobError, ModelUnsupported
from driftloop.schemas.events import Signature
from driftloop.schemas.feature_row import FeatureRows
from driftloop.schemas.recipes import BUILT_IN, Recipe, Refit
from driftloop.schemas.rows import Rows
from driftloop.streams.publishing import adopted_signature
from driftloop.tests.exported import mixed_names, mixed_rows
from driftloop.tests.onnx_graphs import sound_model

pytestmark = pytest.mark.slow

EXPORTS = Path(__file__).parent / "exports"


@cache
def piece_of(name: str) -> Workpiece:
    adopted = adopt((EXPORTS / f"{name}.onnx").read_bytes())
    return Workpiece(adopted.onnx, adopted_signature(adopted, (), ()), version=1)


def ensembles() -> list[str]:
    found = [
        file.stem
        for file in sorted(EXPORTS.glob("*.onnx"))
        if sum(node.op_type.startswith("TreeEnsemble") for node in onnx.load(file).graph.node) == 1
    ]
    # One is a regression on what its trees say. skl2onnx says that trees of doubles give doubles; onnxruntime refuses that.
    return [name for name in found if name not in ("sk_stacked", "tree_double_two", "tree_double_forest")]


def of_columns(name: str) -> bool:
    return name.startswith(("mixed_", "whole_"))


def rows_for(piece: Workpiece, count: int, seed: int, *, turned: bool = True) -> Rows:
    """Rows of the concept that the exports learnt, or of its reverse; a few values are missing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    turn = (features[:, 0] + features[:, 1] * features[:, 2]) * (-1 if turned else 1)
    bounds = {0: None, 2: [0.0], 3: [-0.5, 0.5]}[len(piece.signature.classes)]
    labels = 5 + 2 * turn.astype(np.float64) if bounds is None else np.digitize(turn, bounds)
    features[rng.random(features.shape) < 0.02] = np.nan
    return Rows(features, labels, np.arange(count, dtype=np.int64))


def column_rows(name: str, count: int, seed: int) -> Rows:
    """Rows of columns of any kind, as events carry them; the labels are the model's answers turned about."""
    piece = piece_of(name)
    known = mixed_rows(next(one for one in mixed_names() if one.split("=")[0] == name))
    rng = np.random.default_rng(seed)
    columns = {key: [known[at][key] for at in rng.integers(len(known), size=count)] for key in known[0]}
    rows = FeatureRows(piece.signature)
    given = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    features = np.array([rows.row(one if piece.signature.categories else list(one.values())) for one in given], np.float32)
    scores = piece.runner.scores(features)
    labels = 2 * scores.mean() - scores[:, 0].astype(np.float64) if scores.shape[1] == 1 else (1 - scores.argmax(axis=1))
    return Rows(features, labels, np.arange(count, dtype=np.int64))


def context_of(piece: Workpiece, rows: Rows, earlier: tuple[Workpiece, ...] = ()) -> JobContext:
    data = JobData(rows, rows.take(slice(0, 100)), None, rows.features)
    return JobContext(data, piece, earlier, Cpu(), 0, Track(lambda news: None))


def level(piece: Workpiece, rows: Rows) -> float:
    return float(outcomes(piece.runner.scores(rows.features), rows, piece.signature.task).mean())


def test_the_stored_ensembles_are_many() -> None:
    assert len(ensembles()) >= 30


@pytest.mark.parametrize("name", ensembles())
def test_a_turned_concept_is_learnt_by_the_leaves_alone(name: str) -> None:
    piece = piece_of(name)
    if of_columns(name):
        rows, later = (column_rows(name, count, seed) for count, seed in ((1000, 1), (2000, 2)))
        known = 1.0 if piece.signature.task == "classification" else 0.0
    else:
        rows, later = rows_for(piece, 1000, 1), rows_for(piece, 2000, 2)
        known = level(piece, rows_for(piece, 2000, 2, turned=False))
    made = refit(Refit(), piece, context_of(piece, rows))
    before, after = level(piece, later), level(made, later)
    # As far from the old level as it was right before; forests of five small trees say the least of a number.
    assert after - before > 0.7 * (known - before), (before, after, known)
    assert (made.trained_rows, made.version, made.signature) == (1000, None, piece.signature)
    place = ensemble_place(piece.model)
    assert made.model.graph.node[place].ByteSize() == piece.model.graph.node[place].ByteSize()
    changed = [
        attribute.name
        for attribute in made.model.graph.node[place].attribute
        if attribute not in piece.model.graph.node[place].attribute
    ]
    assert [name.split("_")[1] for name in changed] == ["weights"]


@pytest.mark.parametrize("name", ensembles())
def test_what_keeps_all_of_the_old_changes_nothing(name: str) -> None:
    piece = piece_of(name)
    rows, later = (column_rows(name, 300, seed) if of_columns(name) else rows_for(piece, 300, seed) for seed in (3, 4))
    made = refit(Refit(decay=1.0), piece, context_of(piece, rows))
    features = later.features
    moved = made.runner.scores(features).astype(np.float64) - piece.runner.scores(features)
    if piece.signature.task == "regression" and abs(moved.mean()) > 0.01:
        # A forest of numbers keeps where they lie among each other, at the new level.
        assert abs(float((made.runner.scores(rows.features)[:, 0] - rows.labels).mean())) < 1e-4
        moved -= moved.mean()
    assert np.allclose(moved, 0, atol=1e-5)


def test_a_few_rows_of_the_old_concept_do_no_harm() -> None:
    for name in ("tree_lightgbm_two", "tree_xgboost_three", "tree_forest_three", "tree_catboost_two"):
        piece = piece_of(name)
        made = refit(Refit(), piece, context_of(piece, rows_for(piece, 60, 5, turned=False)))
        later = rows_for(piece, 2000, 6, turned=False)
        assert level(made, later) > level(piece, later) - 0.08, name


@pytest.mark.parametrize("name", ["tree_lightgbm_number", "tree_lightgbm_forest", "tree_xgboost_number", "tree_extra_number"])
def test_numbers_far_from_zero_and_of_another_scale_are_learnt_as_well(name: str) -> None:
    piece = piece_of(name)
    rows = rows_for(piece, 1000, 7)
    far = Rows(rows.features, 1e4 + 100 * rows.labels, rows.offsets)
    near, away = (refit(Refit(decay=0.0), piece, context_of(piece, one)).runner.scores(rows.features) for one in (rows, far))
    assert np.allclose((away - 1e4) / 100, near, atol=0.02)
    kept = refit(Refit(), piece, context_of(piece, far)).runner.scores(rows.features)
    assert abs(kept.mean() - far.labels.mean()) < 20, "the old level is not kept"


def test_rows_of_one_class_alone_make_a_model_that_runs() -> None:
    for name in ("tree_lightgbm_two", "tree_lightgbm_three", "tree_forest_three", "tree_catboost_two", "tree_histogram_two"):
        piece = piece_of(name)
        rows = rows_for(piece, 100, 8)
        one = Rows(rows.features, np.full(100, 1), rows.offsets)
        made = refit(Refit(decay=0.0), piece, context_of(piece, one))
        scores = made.runner.scores(rows.features)
        assert np.isfinite(scores).all()
        assert (scores.argmax(axis=1) == 1).all()
        assert (scores[:, 1] > 0.9).all(), name


def test_a_sigmoid_outside_of_the_node_is_seen_through() -> None:
    numbers = piece_of("tree_xgboost_number")
    model = onnx.ModelProto()
    model.CopyFrom(numbers.model)
    node = model.graph.node[ensemble_place(model)]
    next(one for one in node.attribute if one.name == "base_values").floats[:] = [0.0]
    node.output[0] = "sum"
    model.graph.node.append(helper.make_node("Sigmoid", ["sum"], [numbers.signature.output_name]))
    signature = msgspec.structs.replace(numbers.signature, task="classification", classes=(0, 1))
    piece = Workpiece(model.SerializeToString(), signature)
    later = rows_for(piece, 2000, 14)
    made = refit(Refit(), piece, context_of(piece, rows_for(piece, 1000, 15)))
    assert level(piece, later) < 0.3
    assert level(made, later) > 0.8
    assert [one.op_type for one in made.model.graph.node] == ["TreeEnsembleRegressor", "Sigmoid"]


def test_an_earlier_version_gives_the_trees_where_the_champion_has_none_alone() -> None:
    trees = piece_of("tree_lightgbm_two")
    model = onnx.ModelProto()
    model.CopyFrom(trees.model)
    model.graph.output[0].name = "mapped"
    model.graph.initializer.append(numpy_helper.from_array(np.array([[0.5, 0.1], [0.2, 1.5]], np.float32), "weights"))
    model.graph.node.append(helper.make_node("MatMul", [trees.signature.output_name, "weights"], ["mapped"]))
    signature = msgspec.structs.replace(trees.signature, output_name="mapped")
    mapped = Workpiece(model.SerializeToString(), signature, version=2)
    rows = rows_for(trees, 300, 9)
    with pytest.raises(
        ModelUnsupported, match=r"one that can be refitted: scores of the model must be .* \(use another step, such as"
    ):
        refit(Refit(), mapped, context_of(mapped, rows))
    made = refit(Refit(), mapped, context_of(mapped, rows, (trees,)))
    assert made.onnx == refit(Refit(), trees, context_of(trees, rows)).onnx


def test_what_is_no_ensemble_of_trees_is_refused_at_once_with_a_cure() -> None:
    piece = Workpiece(
        sound_model().SerializeToString(), Signature(task="classification", features=tuple("abcd"), classes=(0, 1, 2))
    )
    rows = rows_for(piece, 100, 10)
    with pytest.raises(ModelUnsupported, match="one that can be refitted: model must have one tree ensemble, got 0 among"):
        refit(Refit(), piece, context_of(piece, rows))
    assert "runner" not in piece.__dict__, "told before the model runs"


def test_rows_that_give_no_finite_scores_are_told() -> None:
    piece = piece_of("tree_lightgbm_number")
    rows = rows_for(piece, 50, 11)
    node = piece.model.graph.node[ensemble_place(piece.model)]
    ensemble = read_ensemble(node)
    huge = ensemble.with_values(np.full(ensemble.values.shape, 3e38))
    model = onnx.ModelProto()
    model.CopyFrom(piece.model)
    model.graph.node[ensemble_place(model)].CopyFrom(huge.node)
    broken = Workpiece(model.SerializeToString(), piece.signature)
    with pytest.raises(JobError, match="training rows must give finite scores"):
        refit(Refit(), broken, context_of(broken, rows))


def test_of_more_rows_than_fit_the_newest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = piece_of("tree_lightgbm_two")
    rows = rows_for(piece, 400, 13)
    monkeypatch.setattr(refit_module, "MAX_REACHED", 8 * 100)
    made = refit(Refit(), piece, context_of(piece, rows))
    assert made.trained_rows == 100
    assert made.onnx == refit(Refit(), piece, context_of(piece, rows.take(slice(300, None)))).onnx


def test_the_arm_repair_takes_it_for_trees_and_passes_over_it_for_others() -> None:
    piece = piece_of("tree_xgboost_two")
    arms = {name: arm for name, arm in BUILT_IN["repair"].arms.items() if name in ("refit", "finetune")}
    assert set(arms) == {"refit", "finetune"}
    recipe = Recipe(name="trees", arms=arms, gate=BUILT_IN["repair"].gate)
    choice = run_arms(recipe, context_of(piece, rows_for(piece, 300, 12)), 20)
    assert [candidate.arm for candidate in choice.candidates] == ["refit"]
