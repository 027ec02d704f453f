"""What a graph says of its outputs decides what scores they can be."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from driftloop.compression.graph_signature import check_signature
from driftloop.compression.onnx_file import graph_signature, load_onnx, signature_of
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.tests.onnx_graphs import bytes_of, model_of, signature

ONES = {"w": np.ones((4, 1), np.float32)}


def one_column(*tail: str) -> bytes:
    names = ["a", *(f"t{at}" for at in range(len(tail) - 1)), "scores"][-len(tail) - 1 :] if tail else ["scores"]
    nodes = [helper.make_node("MatMul", ["features", "w"], [names[0]])]
    nodes += [helper.make_node(kind, [names[at]], [names[at + 1]]) for at, kind in enumerate(tail)]
    return bytes_of(nodes, ONES)


@pytest.mark.parametrize("tail", [("Sigmoid",), ("Sigmoid", "Identity")])
def test_one_sigmoid_is_the_second_of_two_classes(tail: tuple[str, ...]) -> None:
    graph = signature_of(one_column(*tail))
    check_signature(graph, signature(4, 2))
    with pytest.raises(ArtifactInvalid, match="3 columns, got 1"):
        check_signature(graph, signature(4, 3))


def test_one_column_without_a_sigmoid_says_how_to_make_it_fit() -> None:
    graph = signature_of(one_column())
    check_signature(graph, signature(4, 0))
    with pytest.raises(ArtifactInvalid, match="ends in a Sigmoid: add one, or give two columns"):
        check_signature(graph, signature(4, 2))


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (helper.make_node("Concat", ["features", "features"], ["scores"], axis=0), "6 for 3"),
        (helper.make_node("ReduceMean", ["features", "axis"], ["scores"], keepdims=1), "1 for 3"),
    ],
)
def test_rows_must_come_out_as_they_went_in(node: object, says: str) -> None:
    graph = signature_of(bytes_of([node], {"axis": np.array([0], np.int64)}))  # type: ignore[list-item]
    with pytest.raises(ArtifactInvalid, match=says):
        check_signature(graph, signature(4, 4))


def test_scores_are_floating_point_and_the_last_output_that_is() -> None:
    model = model_of([helper.make_node("Neg", ["features"], ["scores"])])
    model.graph.node.append(helper.make_node("Cast", ["scores"], ["whole"], to=TensorProto.INT64))
    model.graph.output.append(helper.make_tensor_value_info("whole", TensorProto.INT64, ["batch", 4]))
    graph = graph_signature(load_onnx(model.SerializeToString()))
    assert graph.scores_name == "scores"
    del model.graph.output[0]
    graph = graph_signature(load_onnx(model.SerializeToString()))
    whole = signature(4, 4).__class__(task="regression", features=("a", "b", "c", "d"), output_name="whole")
    with pytest.raises(ArtifactInvalid, match="floating-point"):
        check_signature(graph, whole)
