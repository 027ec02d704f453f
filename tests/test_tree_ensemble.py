"""Tree ensembles: what exporters wrote is walked as onnxruntime walks it, written back at the same size, or refused with a cure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from driftloop.compression.ml_attributes import Attributes
from driftloop.compression.runtime import open_session
from driftloop.compression.tree_checks import check_classifier
from driftloop.compression.tree_ensemble import TreeEnsemble, ensemble_place, read_ensemble
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported

EXPORTS = Path(__file__).parent / "exports"


def is_walked(model: ModelProto) -> bool:
    """Return whether a model has one ensemble and takes one matrix of floating-point numbers, before anything is made of it."""
    kinds = [value.type.tensor_type.elem_type for value in model.graph.input]
    trees = sum(node.op_type.startswith("TreeEnsemble") for node in model.graph.node)
    return trees == 1 and kinds in ([onnx.TensorProto.FLOAT], [onnx.TensorProto.DOUBLE])


MODELS = {file.stem: model for file in sorted(EXPORTS.glob("*.onnx")) if is_walked(model := onnx.load(file))}


def rows_of(model: ModelProto, count: int, seed: int) -> NDArray[Any]:
    """Return rows with gaps, and with values that lie on thresholds."""
    rng = np.random.default_rng(seed)
    node = model.graph.node[ensemble_place(model)]
    bounds = np.array(next(a.floats for a in node.attribute if a.name == "nodes_values"), np.float32)
    rows = np.where(rng.random((count, 4)) < 0.3, rng.choice(bounds, (count, 4)), rng.normal(size=(count, 4)).astype(np.float32))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    double = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    return rows.astype(np.float64 if double else np.float32)


def run(model: ModelProto, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what onnxruntime gives the ensemble, and what the ensemble gives, in a graph that ends there."""
    cut = ModelProto()
    cut.CopyFrom(model)
    place = ensemble_place(cut)
    node = cut.graph.node[place]
    given_by_a_node = any(node.input[0] in one.output for one in cut.graph.node)
    del cut.graph.node[place + 1 :]
    del cut.graph.output[:]
    for name in [node.input[0]] * given_by_a_node + [node.output[-1]]:
        cut.graph.output.add(name=name)
    found = open_session(cut.SerializeToString()).run(None, {cut.graph.input[0].name: rows})
    return (found[0] if given_by_a_node else rows), found[-1]


def same(ensemble: TreeEnsemble, model: ModelProto, rows: NDArray[Any]) -> bool:
    matrix, wanted = run(model, rows)
    made = ensemble.scores(ensemble.sums(ensemble.leaves(matrix)))
    return bool(np.allclose(made, wanted, rtol=1e-5, atol=1e-5))


def put(model: ModelProto, node: NodeProto) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.graph.node[ensemble_place(changed)].CopyFrom(node)
    return changed


def test_exports_of_every_kind_are_here() -> None:
    kinds = {(node.op_type, mode) for model in MODELS.values() for node, mode in modes(model)}
    assert kinds == {
        (kind, mode)
        for kind in ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
        for mode in ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT")
        if (kind, mode) != ("TreeEnsembleRegressor", "BRANCH_GT") or len(MODELS) > 20
    }


def modes(model: ModelProto) -> list[tuple[NodeProto, str]]:
    node = model.graph.node[ensemble_place(model)]
    said = next(attribute.strings for attribute in node.attribute if attribute.name == "nodes_modes")
    return [(node, mode.decode()) for mode in set(said) if mode != b"LEAF"]


@pytest.mark.parametrize("name", MODELS)
def test_a_walk_gives_what_onnxruntime_gives(name: str) -> None:
    model = MODELS[name]
    assert same(read_ensemble(model.graph.node[ensemble_place(model)]), model, rows_of(model, 2000, 1))


@pytest.mark.parametrize("sign", [-1, 0, 1], ids=["below_0", "mixed", "above_0"])
@pytest.mark.parametrize("name", MODELS)
def test_new_leaf_values_are_those_of_the_file(name: str, sign: int) -> None:
    model = MODELS[name]
    old = read_ensemble(model.graph.node[ensemble_place(model)])
    values = np.random.default_rng(2).normal(size=old.values.shape)
    new = old.with_values(values if not sign else sign * np.abs(values))
    changed = put(model, new.node)
    assert len(changed.SerializeToString()) == len(model.SerializeToString())
    assert same(new, changed, rows_of(model, 300, 3))
    again = read_ensemble(new.node)
    assert np.array_equal(again.values, new.values)
    assert np.array_equal(old.values, read_ensemble(old.node).values), "the old one is as it was"


def test_the_order_and_the_numbers_of_nodes_are_of_no_account() -> None:
    model = MODELS["tree_xgboost_two"]
    node = NodeProto()
    node.CopyFrom(model.graph.node[ensemble_place(model)])
    held = {attribute.name: attribute for attribute in node.attribute}
    tree = np.array(held["nodes_treeids"].ints)
    order = np.concatenate([np.random.default_rng(4).permutation(np.flatnonzero(tree == one)) for one in np.unique(tree)])
    for name in [name for name in held if name.startswith("nodes_")]:
        attribute = held[name]
        for part in (attribute.ints, attribute.floats, attribute.strings):
            shuffled = [part[place] for place in order] if len(part) else []
            del part[:]
            part.extend(shuffled)
        if name.endswith(("nodeids", "treeids")):
            attribute.ints[:] = [number * 1_000_003 - 5 for number in attribute.ints]
    for name in ("class_nodeids", "class_treeids"):
        held[name].ints[:] = [number * 1_000_003 - 5 for number in held[name].ints]
    made = read_ensemble(node)
    matrix, wanted = run(model, rows_of(model, 300, 5))
    assert np.allclose(made.scores(made.sums(made.leaves(matrix))), wanted, atol=1e-6)


@pytest.mark.parametrize("mode", ["BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"])
def test_modes_that_no_exporter_here_writes_are_walked_as_onnxruntime_does(mode: str) -> None:
    model = MODELS["tree_lightgbm_two"]
    node = NodeProto()
    node.CopyFrom(model.graph.node[ensemble_place(model)])
    said = next(attribute for attribute in node.attribute if attribute.name == "nodes_modes")
    said.strings[:] = [one if one == b"LEAF" else mode.encode() for one in said.strings]
    changed = put(model, node)
    assert same(read_ensemble(node), changed, rows_of(changed, 2000, 6))


def test_numbers_may_be_tensors_of_doubles() -> None:
    model = MODELS["tree_double_forest"]
    node = NodeProto()
    node.CopyFrom(model.graph.node[ensemble_place(model)])
    kept = [attribute for attribute in node.attribute if not attribute.floats]
    tensors = {a.name: np.array(a.floats, np.float64) + 1e-9 for a in node.attribute if a.floats}
    copies = [onnx.AttributeProto() for _ in kept]
    for copy, attribute in zip(copies, kept, strict=True):
        copy.CopyFrom(attribute)
    copies += [helper.make_attribute(f"{name}_as_tensor", numpy_helper.from_array(array)) for name, array in tensors.items()]
    del node.attribute[:]
    node.attribute.extend(copies)
    changed = put(model, node)
    next(entry for entry in changed.opset_import if entry.domain).version = 3
    ensemble = read_ensemble(node)
    rows = rows_of(model, 500, 7)
    assert same(ensemble, changed, rows)
    new = ensemble.with_values(ensemble.values * 2 + 1)
    assert same(new, put(changed, new.node), rows)
    assert not same(new, changed, rows)


def broken(model: str, change: Callable[[dict[str, Any]], None]) -> NodeProto:
    node = NodeProto()
    held = MODELS[model].graph.node
    node.CopyFrom(held[ensemble_place(MODELS[model])])
    change({attribute.name: attribute for attribute in node.attribute})
    return node


def set_bytes(name: str, value: bytes) -> Callable[[dict[str, Any]], None]:
    def change(held: dict[str, Any]) -> None:
        if held[name].strings:
            held[name].strings[0] = value
        else:
            held[name].s = value

    return change


def test_what_is_not_handled_is_refused_with_a_cure() -> None:
    with pytest.raises(ModelUnsupported, match=r"must be TreeEnsembleClassifier or TreeEnsembleRegressor .*use another step"):
        read_ensemble(helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml"))
    with pytest.raises(ModelUnsupported, match=r"one tree ensemble, got 0 among .*MatMul.*use another step"):
        ensemble_place(onnx.load(EXPORTS / "mlp_classifier.onnx"))
    node = broken("tree_lightgbm_three", set_bytes("post_transform", b"PROBIT"))
    ensemble = read_ensemble(node)
    with pytest.raises(
        ModelUnsupported, match=r"post_transform must be NONE, LOGISTIC or SOFTMAX, got 'PROBIT' .*use another step"
    ):
        ensemble.scores(np.zeros((1, 3)))
    node = broken("tree_lightgbm_number", lambda held: None)
    node.attribute.append(helper.make_attribute("aggregate_function", "MAX"))
    with pytest.raises(ModelUnsupported, match="aggregate_function must be SUM or AVERAGE, got 'MAX'"):
        read_ensemble(node)
    two = onnx.load(EXPORTS / "tree_lightgbm_two.onnx")
    two.graph.node.add().CopyFrom(two.graph.node[0])
    with pytest.raises(ModelUnsupported, match="one tree ensemble, got 2"):
        ensemble_place(two)


def test_rows_of_too_few_features_and_values_that_are_not_finite_are_refused() -> None:
    model = MODELS["tree_lightgbm_two"]
    ensemble = read_ensemble(model.graph.node[ensemble_place(model)])
    with pytest.raises(ArtifactInvalid, match=r"features must be at least \d, got shape \[3, 1\]"):
        ensemble.leaves(np.zeros((3, 1), np.float32))
    for value in (np.nan, np.inf, 1e39):
        with pytest.raises(ArtifactInvalid, match="new leaf values must be finite"):
            ensemble.with_values(np.full(ensemble.values.shape, value))
    assert ensemble.leaves(np.zeros((0, 4), np.float32)).shape == (0, len(ensemble.roots))


def test_two_weights_of_one_leaf_and_too_few_bases_are_refused() -> None:
    def repeat(held: dict[str, Any]) -> None:
        for name in ("class_treeids", "class_nodeids"):
            held[name].ints[1] = held[name].ints[0]

    with pytest.raises(ModelUnsupported, match=r"a leaf must have one weight for each of class_ids, got two .*use another step"):
        read_ensemble(broken("tree_lightgbm_two", repeat))
    with pytest.raises(ModelUnsupported, match=r"base_values must be 3, got 1 .*use another step"):
        read_ensemble(broken("tree_xgboost_three", lambda held: held["base_values"].floats.__delitem__(slice(1, None))))


@settings(max_examples=300)
@given(st.data())
def test_whatever_the_numbers_of_nodes_are_a_walk_ends_or_is_refused(data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["nodes_truenodeids", "nodes_falsenodeids", "nodes_nodeids", "nodes_treeids", "nodes_featureids"])
    )

    def change(held: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(held[name].ints) - 1))
            held[name].ints[place] = data.draw(st.integers(-2, 14) | st.integers(-(2**63), 2**63 - 1))

    node = broken("tree_lightgbm_two", change)
    try:
        check_classifier(Attributes(node), 4)  # as load_onnx does
    except ArtifactInvalid:
        return
    ensemble = read_ensemble(node)
    leaves = ensemble.leaves(np.zeros((2, 4), np.float32))
    assert leaves.shape == (2, len(ensemble.roots))
    assert ((leaves >= 0) & (leaves < len(ensemble.values))).all()
