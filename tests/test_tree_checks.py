"""Tree ensembles whose numbers point anywhere but into their own arrays are refused with the attribute's name; real ones are taken."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from driftloop.compression import tree_checks
from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import load_onnx
from driftloop.compression.runtime import open_session
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.tests.exported import export, names

FEATURES = 4


def set_at(name: str, at: int, value: object) -> Callable[[NodeProto], None]:
    def change(node: NodeProto) -> None:
        found = next(one for one in node.attribute if one.name == name)
        part = found.ints or found.floats or found.strings
        part[at] = value

    return change


def cut(name: str) -> Callable[[NodeProto], None]:
    def change(node: NodeProto) -> None:
        found = next(one for one in node.attribute if one.name == name)
        del (found.ints or found.floats or found.strings)[-1]

    return change


def drop(name: str) -> Callable[[NodeProto], None]:
    def change(node: NodeProto) -> None:
        kept = [one for one in node.attribute if one.name != name]
        copies = [onnx.AttributeProto.FromString(one.SerializeToString()) for one in kept]
        del node.attribute[:]
        node.attribute.extend(copies)

    return change


def put(name: str, value: object) -> Callable[[NodeProto], None]:
    def change(node: NodeProto) -> None:
        drop(name)(node)
        node.attribute.append(helper.make_attribute(name, value))

    return change


def own_child(node: NodeProto) -> None:
    set_at("nodes_truenodeids", 0, 0)(node)


def swapped_pieces(node: NodeProto) -> None:
    trees = next(one for one in node.attribute if one.name == "nodes_treeids").ints
    trees[0], trees[-1] = trees[-1], trees[0]


def circle_apart(node: NodeProto) -> None:
    """Two more nodes of the last tree, each the child of the other: no root leads to them."""
    values = {one.name: one for one in node.attribute}
    tree, last = values["nodes_treeids"].ints[-1], max(values["nodes_nodeids"].ints)
    for at, other in ((1, 2), (2, 1)):
        values["nodes_treeids"].ints.append(tree)
        values["nodes_nodeids"].ints.append(last + at)
        values["nodes_featureids"].ints.append(0)
        values["nodes_modes"].strings.append(b"BRANCH_LEQ")
        values["nodes_truenodeids"].ints.append(last + other)
        values["nodes_falsenodeids"].ints.append(last + other)
        values["nodes_values"].floats.append(0.0)
        values["nodes_hitrates"].floats.append(1.0)
        values["nodes_missing_value_tracks_true"].ints.append(0)


def spoiled(name: str, change: Callable[[NodeProto], None]) -> bytes:
    model = load_onnx(adopt(export(name)).onnx)
    node = next(one for one in model.graph.node if one.op_type.startswith("TreeEnsemble"))
    change(node)
    return bytes(model.SerializeToString())


HOSTILE = [
    (set_at("nodes_featureids", 0, FEATURES), "'nodes_featureids' must be 0 to 3, got '4'"),
    (set_at("nodes_featureids", 0, -1), "'nodes_featureids' must be 0 to 3, got '-1'"),
    (set_at("nodes_featureids", 3, 2**62), "'nodes_featureids'"),
    (set_at("nodes_truenodeids", 0, 10**9), "'nodes_truenodeids' must point at nodes of the tree"),
    (set_at("nodes_falsenodeids", 0, -5), "'nodes_falsenodeids' must point at nodes of the tree"),
    (set_at("nodes_falsenodeids", 0, 1), "lead to each node once"),
    (own_child, "lead to each node once"),
    (circle_apart, "2 nodes that no root leads to"),
    (swapped_pieces, "'nodes_treeids'|'nodes_nodeids'|point at nodes"),
    (set_at("nodes_nodeids", 1, 0), "'nodes_nodeids' must be there once"),
    (set_at("nodes_modes", 0, b"LEAF"), "no root leads to"),
    (set_at("nodes_modes", 0, b"BRANCH_MEMBER"), "'nodes_modes' must be of"),
    (set_at("nodes_modes", 0, b"\xff"), "UTF-8"),
    (set_at("nodes_modes", 0, b"x" * 20_000), "at most 10000 bytes"),
    (set_at("nodes_values", 0, float("nan")), "'nodes_values' must hold finite numbers alone, got 'nan'"),
    (set_at("nodes_values", 0, float("inf")), "'nodes_values' must hold finite numbers alone, got 'inf'"),
    (set_at("class_weights", 0, float("-inf")), "'class_weights' must hold finite"),
    (set_at("class_ids", 0, 3), "'class_ids' must be 0 to 2, got '3'"),
    (set_at("class_ids", 0, -1), "'class_ids' must be 0 to 2"),
    (set_at("class_nodeids", 0, 0), "'class_nodeids' must be leaves, got 'a branch, node 0'"),
    (set_at("class_nodeids", 0, 10**6), "'class_nodeids' must point at nodes"),
    (set_at("class_treeids", 0, 77), "'class_nodeids' must point at nodes"),
    *((cut(f"nodes_{part}"), f"'nodes_{part}' must have") for part in ("nodeids", "featureids", "modes", "values", "hitrates")),
    *((cut(f"nodes_{part}"), f"'nodes_{part}' must have") for part in ("truenodeids", "falsenodeids")),
    (cut("nodes_missing_value_tracks_true"), "'nodes_missing_value_tracks_true' must have"),
    *((cut(f"class_{part}"), f"'class_{part}' must have") for part in ("weights", "nodeids", "treeids")),
    (drop("nodes_treeids"), "'nodes_treeids' must have 1 to"),
    (drop("class_ids"), "'class_ids' must hold the weights"),
    (drop("classlabels_int64s"), "'classlabels_int64s' must hold the classes"),
    (put("classlabels_strings", ["a", "b", "c"]), "classlabels_strings instead of it, got '3 and 3'"),
    (put("post_transform", "EXPLODE"), "'post_transform' must be one of NONE, SOFTMAX"),
    (put("base_values", [0.0, 1.0]), "'base_values' must have no, one or 3 entries, got '2'"),
    (put("nodes_values", [1, 2, 3]), "ONNX checker.*nodes_values"),
]


@pytest.mark.parametrize(("change", "says"), HOSTILE, ids=[says[:50] for _, says in HOSTILE])
def test_a_hostile_ensemble_is_refused_by_name(change: Callable[[NodeProto], None], says: str) -> None:
    with pytest.raises(ArtifactInvalid, match=says):
        load_onnx(spoiled("sk_forest_three", change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("n_targets", 10**7), "'n_targets' must make 1 to 10000 outputs"),
        (put("n_targets", 0), "'n_targets' must make 1 to 10000 outputs"),
        (set_at("target_ids", 0, 1), "'target_ids' must be 0 to 0"),
        (cut("target_weights"), "'target_weights' must have"),
        (put("aggregate_function", "MEDIAN"), "'aggregate_function' must be one of SUM"),
        (put("base_values", [1.0, 2.0]), "'base_values' must have no or 1 entries"),
    ],
)
def test_a_hostile_regressor_is_refused_by_name(change: Callable[[NodeProto], None], says: str) -> None:
    with pytest.raises(ArtifactInvalid, match=says):
        load_onnx(spoiled("sk_forest_number", change))


def chain(length: int) -> bytes:
    """One tree that goes down and down: onnxruntime loads it by recursion."""
    count = 2 * length + 1
    branch = np.arange(count) % 2 == 0
    branch[-1] = False
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_modes=["BRANCH_LEQ" if one else "LEAF" for one in branch],
        nodes_values=[0.0] * count,
        nodes_truenodeids=[at + 1 if one else 0 for at, one in enumerate(branch)],
        nodes_falsenodeids=[at + 2 if one else 0 for at, one in enumerate(branch)],
        target_treeids=[0] * int((~branch).sum()),
        target_nodeids=[int(at) for at in np.flatnonzero(~branch)],
        target_ids=[0] * int((~branch).sum()),
        target_weights=[1.0] * int((~branch).sum()),
    )
    return ensemble_file([node], 3)


def ensemble_file(nodes: list[NodeProto], version: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])],
    )
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    return bytes(helper.make_model(graph, opset_imports=sets, ir_version=10).SerializeToString())


def test_a_tree_may_be_deep_but_not_endless() -> None:
    load_onnx(chain(tree_checks.DEPTH - 1))
    with pytest.raises(ArtifactInvalid, match="depth of at most 1000"):
        load_onnx(chain(tree_checks.DEPTH))


def test_more_nodes_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_checks, "NODES", 10)
    with pytest.raises(ArtifactInvalid, match="'nodes_treeids' must have 1 to 10 entries"):
        load_onnx(chain(6))


def test_rows_of_unknown_width_are_refused_before_a_feature_is_looked_up() -> None:
    model = ModelProto.FromString(chain(2))
    model.graph.node[0].input[0] = "shaped"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4], np.float32), "numbers"))
    nodes = [
        helper.make_node("Cast", ["numbers"], ["sizes"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["features", "sizes"], ["shaped"]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(ModelUnsupported, match="matrix of known width"):
        load_onnx(model.SerializeToString())


# TreeEnsemble of operator set 5: leaves have numbers of their own, and membership is a mode of its own.
def ensemble(**changes: object) -> bytes:
    parts: dict[str, object] = {
        "n_targets": 1,
        "aggregate_function": 1,
        "post_transform": 0,
        "tree_roots": [0],
        "nodes_modes": numpy_helper.from_array(np.array([0, 6], np.uint8)),
        "nodes_featureids": [0, 1],
        "nodes_splits": numpy_helper.from_array(np.array([0.5, 0.0], np.float32)),
        "nodes_truenodeids": [0, 1],
        "nodes_trueleafs": [1, 1],
        "nodes_falsenodeids": [1, 2],
        "nodes_falseleafs": [0, 1],
        "leaf_targetids": [0, 0, 0],
        "leaf_weights": numpy_helper.from_array(np.array([1.0, 2.0, 3.0], np.float32)),
        "membership_values": numpy_helper.from_array(np.array([7.0, 8.0, np.nan], np.float32)),
    }
    return ensemble_file([helper.make_node("TreeEnsemble", ["features"], ["scores"], domain="ai.onnx.ml", **(parts | changes))], 5)


def floats(*values: float) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32))


def test_an_ensemble_of_set_5_is_taken_and_runs() -> None:
    data = ensemble()
    load_onnx(data)
    rows = np.array([[0, 0, 0, 0], [1, 7, 0, 0], [1, 9, 0, 0]], np.float32)
    assert open_session(data).run(None, {"features": rows})[0].ravel().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tree_roots": [2]}, "'tree_roots' must be 0 to 1"),
        ({"tree_roots": [0, 0]}, "lead to each node once"),
        ({"tree_roots": [0, 1]}, "lead to each node once"),
        ({"nodes_truenodeids": [3, 1]}, "'nodes_truenodeids' must be 0 to 2"),
        ({"nodes_falsenodeids": [2, 2]}, "'nodes_falsenodeids' must be 0 to 1"),
        ({"nodes_falsenodeids": [0, 2]}, "lead to each node once"),
        ({"nodes_falseleafs": [0, 2]}, "'nodes_falseleafs' must be 0 to 1"),
        ({"nodes_falseleafs": [0]}, "'nodes_falseleafs' must have 2 el"),
        ({"nodes_featureids": [0, 4]}, "'nodes_featureids' must be 0 to 3"),
        ({"nodes_modes": numpy_helper.from_array(np.array([0, 9], np.uint8))}, "'nodes_modes' must be 0 to 6"),
        ({"nodes_splits": floats(0.5)}, "must have 1 elements"),
        ({"nodes_splits": floats(0.5, np.nan)}, "'nodes_splits' must hold finite"),
        ({"leaf_targetids": [0, 0, 1]}, "'leaf_targetids' must be 0 to 0"),
        ({"leaf_weights": floats(1, 2, np.inf)}, "'leaf_weights' must hold finite"),
        ({"membership_values": floats(7, 8)}, "'membership_values' must have 1 entries"),
        ({"post_transform": 9}, "'post_transform' must be 0 to 4"),
        ({"nodes_missing_value_tracks_true": [1]}, "'nodes_missing_value_tracks_true' must have 2"),
    ],
    ids=[f"{at}" for at in range(17)],
)
def test_a_hostile_ensemble_of_set_5_is_refused_by_name(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ArtifactInvalid, match=says):
        load_onnx(ensemble(**changes))


@pytest.mark.parametrize("name", [name for name in names() if name.split("_")[0].split(".")[0] in ("lgb", "xgb", "cat")])
def test_real_ensembles_are_sound(name: str) -> None:
    load_onnx(adopt(export(name)).onnx)
