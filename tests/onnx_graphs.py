"""Small ONNX graphs for the tests of the compression room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import load_onnx
from driftloop.schemas.events import Signature
from driftloop.schemas.rows import Rows

EXPORTS = Path(__file__).parent / "exports"


def model_of(
    nodes: Sequence[NodeProto],
    tensors: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str] = ("batch", 4),
    opset: int = 18,
) -> ModelProto:
    held = {} if tensors is None else tensors
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = shape_inference.infer_shapes(model).graph.output[0]
    model.graph.output[0].CopyFrom(inferred)
    return model


def bytes_of(nodes: Sequence[NodeProto], tensors: dict[str, np.ndarray] | None = None, **keywords: object) -> bytes:
    return model_of(nodes, tensors, **keywords).SerializeToString()  # type: ignore[arg-type]


def sound_model() -> ModelProto:
    """Two layers and a Softmax over four features, three classes."""
    rng = np.random.default_rng(0)
    tensors = {
        "w0": rng.normal(size=(8, 4)).astype(np.float32),
        "b0": rng.normal(size=8).astype(np.float32),
        "w1": rng.normal(size=(8, 3)).astype(np.float32),
        "b1": rng.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w0", "b0"], ["a"], "first", transB=1),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], "second"),
        helper.make_node("Add", ["c", "b1"], ["logits"], "bias"),
        helper.make_node("Softmax", ["logits"], ["scores"], "softmax", axis=1),
    ]
    return model_of(nodes, tensors)


def exported_trees(name: str) -> bytes:
    """An ensemble of tests/exports as it is registered, its input and scores named as `signature` has them."""
    model = load_onnx(adopt((EXPORTS / f"{name}.onnx").read_bytes()).onnx)
    names = {model.graph.input[0].name: "features", model.graph.output[-1].name: "scores"}
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    for node in model.graph.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]
    return model.SerializeToString()


def signature(features: int, classes: int) -> Signature:
    task = "classification" if classes else "regression"
    return Signature(task=task, features=tuple(f"x{index}" for index in range(features)), classes=tuple(range(classes)))


def turning_rows(count: int, seed: int, *, turned: bool = False) -> Rows:
    """Rows of two classes with 5 % noise; where the concept has turned every answer is the other."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] * features[:, 2] > 0) ^ (rng.random(count) < 0.05) ^ turned
    return Rows(features, labels.astype(np.int64), np.arange(count, dtype=np.int64))
