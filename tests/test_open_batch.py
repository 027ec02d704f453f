"""Graphs that were exported for a batch of one row take any number of rows, where each row is answered by itself."""

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.adoption import adopt
from driftloop.compression.runtime import open_session
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.tests.onnx_graphs import bytes_of, model_of, sound_model


def test_a_batch_of_one_is_opened_and_reshapes_with_it() -> None:
    nodes = [
        helper.make_node("Reshape", ["features", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "rows"], ["scores"]),
    ]
    rng = np.random.default_rng(0)
    tensors = {"flat": np.array([1, 4]), "rows": np.array([1, 3]), "w": rng.normal(size=(4, 3)).astype(np.float32)}
    made = adopt(bytes_of(nodes, tensors, shape=(1, 2, 2)))
    assert made.notes == ("a batch of 1 became one of any number of rows",)
    rows = rng.normal(size=(6, 2, 2)).astype(np.float32)
    scores = open_session(made.onnx).run(["scores"], {"features": rows})[0]
    np.testing.assert_allclose(scores, rows.reshape(6, 4) @ tensors["w"], rtol=1e-5)


def test_a_dynamic_batch_is_left_as_it_is() -> None:
    assert not adopt(sound_model().SerializeToString()).notes


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([helper.make_node("Softmax", ["features"], ["scores"], axis=0)], "must answer each row by itself.*dynamic batch"),
        ([helper.make_node("ReduceSum", ["features", "zero"], ["scores"], keepdims=1)], "must answer each row by itself"),
    ],
)
def test_a_graph_whose_rows_depend_on_each_other_is_refused(nodes: list[object], says: str) -> None:
    with pytest.raises(ModelUnsupported, match=says):
        adopt(bytes_of(nodes, {"zero": np.array([0])}, shape=(1, 4)))  # type: ignore[arg-type]


def test_a_graph_that_does_not_run_on_more_rows_is_refused() -> None:
    nodes = [helper.make_node("Cast", ["numbers"], ["sizes"], to=7), helper.make_node("Reshape", ["features", "sizes"], ["scores"])]
    with pytest.raises(ArtifactInvalid, match="any number of rows, export it with a dynamic batch"):
        adopt(model_of(nodes, {"numbers": np.array([1, 4], np.float32)}, shape=(1, 4)).SerializeToString())
