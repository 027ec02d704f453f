"""New leaf values: means and Newton steps worked out by hand, a leaf without rows that says what its branch does, forests told apart."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from driftloop.compression.leaf_values import is_forest, new_values
from driftloop.compression.tree_ensemble import TreeEnsemble, ensemble_place, logistic, read_ensemble
from driftloop.compression.tree_meaning import Meaning, number_meaning
from driftloop.schemas.recipes import Refit
from driftloop.tests.onnx_graphs import EXPORTS

# A branch is (feature, bound, below, above); what is no branch is the value of a leaf.
Shape = tuple[int, float, "Shape | float", "Shape | float"]
ALMOST_NOTHING = 1e-9


def ensemble_of(trees: Sequence[Shape], kind: str = "Regressor", **attributes: object) -> TreeEnsemble:
    rows: list[tuple[int, int, int, float, int, int, str]] = []
    weights: list[tuple[int, int, float]] = []

    def grow(at: int, shape: "Shape | float") -> int:
        number = sum(row[0] == at for row in rows)
        rows.append((at, number, 0, 0.0, 0, 0, "LEAF"))
        if isinstance(shape, tuple):
            place = len(rows) - 1
            feature, bound, below, above = shape
            left, right = grow(at, below), grow(at, above)
            rows[place] = (at, number, feature, bound, left, right, "BRANCH_LEQ")
        else:
            weights.append((at, number, shape))
        return number

    for at, tree in enumerate(trees):
        grow(at, tree)
    prefix = "target" if kind == "Regressor" else "class"
    names = ("treeids", "nodeids", "featureids", "values", "truenodeids", "falsenodeids", "modes")
    said = {f"nodes_{name}": list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    said |= {
        f"{prefix}_{name}": list(column)
        for name, column in zip(("treeids", "nodeids", "weights"), zip(*weights, strict=True), strict=True)
    }
    said[f"{prefix}_ids"] = [0 if prefix == "target" else 1] * len(weights)
    said |= {"n_targets": 1} if prefix == "target" else {"classlabels_int64s": [0, 1]}
    return read_ensemble(helper.make_node(f"TreeEnsemble{kind}", ["x"], ["y"], domain="ai.onnx.ml", **said, **attributes))


def squared(labels: Sequence[float]) -> Meaning:
    return Meaning("squared", lambda sums: sums, np.array(labels, np.float64)[:, None], chances=False)


def rows_of(*columns: Sequence[float]) -> NDArray[np.float32]:
    return np.array(columns, np.float32).T


def test_boosted_numbers_take_the_level_and_then_each_tree_what_is_left() -> None:
    ensemble = ensemble_of([(0, 0.0, 7.0, 7.0), (1, 0.0, 7.0, 7.0)])
    rows = rows_of([-1, -1, 1, 1], [-1, 1, -1, 1])
    # Two rounds: 4 / 2 is more than 1, so each tree goes the whole way. Row by row 1, 2, 5, 8: level 4.
    values = new_values(ensemble, ensemble.leaves(rows), squared([1, 2, 5, 8]), Refit(decay=0.0, l2=ALMOST_NOTHING))
    assert np.allclose(values.ravel(), [1.5, 6.5, (-0.5 - 1.5) / 2, (0.5 + 1.5) / 2])
    half = new_values(ensemble, ensemble.leaves(rows), squared([1, 2, 5, 8]), Refit(decay=0.5, l2=ALMOST_NOTHING))
    assert np.allclose(half[:2, 0], [(7 + 1.5) / 2, (7 + 6.5) / 2])
    assert np.allclose(
        half[2:, 0], [(7 + (1 + 5 - half[0, 0] - half[1, 0]) / 2) / 2, (7 + (2 + 8 - half[0, 0] - half[1, 0]) / 2) / 2]
    )


def test_a_learning_rate_counts_where_rounds_are_many() -> None:
    ensemble = ensemble_of([(0, 0.0, 0.0, 0.0)] * 80)
    rows = rows_of([-1, 1])
    values = new_values(ensemble, ensemble.leaves(rows), squared([0, 2]), Refit(decay=0.0, l2=ALMOST_NOTHING, learning_rate=0.25))
    assert np.allclose(values[:2, 0], [1 - 0.25, 1 + 0.25])
    assert np.allclose(values[2:4, 0], [-0.75 * 0.25, 0.75 * 0.25])
    slow = new_values(ensemble, ensemble.leaves(rows), squared([0, 2]), Refit(decay=0.0, l2=ALMOST_NOTHING, learning_rate=0.01))
    assert np.allclose(slow[:2, 0], [1 - 0.05, 1 + 0.05]), "4 / 80 at least"


def test_a_newton_step_divides_by_what_the_loss_bends() -> None:
    ensemble = ensemble_of([(0, 0.0, 0.5, -0.5)], "Classifier", post_transform="LOGISTIC")
    rows = rows_of([-1, -1, -1, -1, 1, 1, 1, 1])
    hits = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float64)
    meaning = Meaning("logistic", logistic, hits[:, None], chances=True)
    values = new_values(ensemble, ensemble.leaves(rows), meaning, Refit(decay=0.0, l2=ALMOST_NOTHING))
    chance = 3.5 / 9
    level, bend = np.log(chance / (1 - chance)), chance * (1 - chance)
    assert np.allclose(values.ravel(), [level + (3 - 4 * chance) / (4 * bend), level - 4 * chance / (4 * bend)])


def test_a_leaf_that_no_row_reaches_says_what_its_branch_says() -> None:
    ensemble = ensemble_of([(0, 0.0, (1, 0.0, 90.0, 91.0), 92.0)], aggregate_function="AVERAGE")
    rows = rows_of([-1, -1, 1], [-1, -1, 1])
    meaning = Meaning("share", lambda sums: sums, np.array([[2.0], [4.0], [9.0]]), chances=True)
    values = new_values(ensemble, ensemble.leaves(rows), meaning, Refit(decay=0.0, l2=2.0))
    root = 5.0
    branch = (6 + 2 * root) / 4
    assert np.allclose(values.ravel(), [(6 + 2 * branch) / 4, branch, (9 + 2 * root) / 3])


def test_trees_of_a_forest_each_hold_their_part_of_the_mean() -> None:
    trees: list[Shape] = [(0, 0.0, 0.1, 0.4), (1, 0.0, 0.3, 0.2)]
    ensemble = ensemble_of(trees, "Classifier")
    rows = rows_of([-1, -1, 1, 1], [-1, 1, -1, 1])
    meaning = Meaning("share", lambda sums: np.hstack([1 - sums, sums]), np.array([[1.0], [1.0], [0.0], [0.0]]), chances=True)
    values = new_values(ensemble, ensemble.leaves(rows), meaning, Refit(decay=0.0, l2=ALMOST_NOTHING))
    assert np.allclose(values.ravel(), [0.5, 0.0, 0.25, 0.25])
    kept = new_values(ensemble, ensemble.leaves(rows), meaning, Refit(decay=0.4, l2=ALMOST_NOTHING))
    assert np.allclose(kept.ravel(), 0.4 * ensemble.values.ravel() + 0.6 * values.ravel())


@pytest.mark.parametrize(
    ("name", "forest"),
    [
        ("tree_lightgbm_number", False),
        ("tree_xgboost_number", False),
        ("sk_boosting_number", False),
        ("cat_number", False),
        ("sk_forest_number", True),
        ("tree_extra_number", True),
        ("tree_double_forest", True),
        ("tree_lightgbm_forest", True),
    ],
)
def test_forests_of_numbers_are_told_from_boosted_trees(name: str, forest: bool) -> None:
    model = onnx.load(EXPORTS / f"{name}.onnx")
    ensemble = read_ensemble(model.graph.node[ensemble_place(model)])
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    assert is_forest(ensemble, ensemble.leaves(rows)) == forest


def test_one_tree_and_trees_that_say_one_number_are_no_forest() -> None:
    for trees in ([(0, 0.0, 1.0, 2.0)], [(0, 0.0, 1.0, 1.0)] * 3):
        ensemble = ensemble_of(trees)
        assert not is_forest(ensemble, ensemble.leaves(rows_of([-1, 1])))


def test_trees_that_say_one_number_learn_all_the_same() -> None:
    ensemble = ensemble_of([(0, 0.0, 3.0, 3.0)] * 10)
    rows = rows_of([-1, 1])
    leaves = ensemble.leaves(rows)
    labels = np.array([-5.0, 5.0])
    sums = ensemble.sums(leaves)
    values = new_values(ensemble, leaves, number_meaning(sums, sums, labels), Refit(decay=0.0, l2=ALMOST_NOTHING))
    assert np.allclose(ensemble.with_values(values).sums(leaves)[:, 0], labels, atol=0.05)
