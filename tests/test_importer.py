"""The importer agrees with onnxruntime operator by operator, and refuses by name what it does not know."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from driftloop.compression.export import check_parity
from driftloop.compression.importer import import_onnx
from driftloop.schemas.errors import ModelUnsupported
from driftloop.tests.onnx_graphs import bytes_of, sound_model

RNG = np.random.default_rng(0)
IMAGE = ("batch", 4, 8, 8)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


Case = tuple[str, list[np.ndarray | None], dict[str, Any], tuple[str | int, ...]]
ROW = ("batch", 4)
CASES: list[Case] = [
    *(
        (name, [], {}, ROW)
        for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "HardSwish", "HardSigmoid", "Selu", "Abs", "Neg")
    ),
    *((name, [], {}, ROW) for name in ("Exp", "Reciprocal", "Elu", "LeakyRelu", "Softmax", "LogSoftmax", "Identity", "Dropout")),
    ("Elu", [], {"alpha": 0.3}, ROW),
    ("LeakyRelu", [], {"alpha": 0.3}, ROW),
    ("Softmax", [], {"axis": 1}, IMAGE),
    *((name, [array(4)], {}, ROW) for name in ("Add", "Sub", "Mul", "Div")),
    ("Pow", [np.array(2.0, np.float32)], {}, ROW),
    ("Clip", [np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}, ROW),
    ("Clip", [None, np.array(0.5, np.float32)], {}, ROW),
    ("Clip", [np.array([-0.5], np.float32), np.array([0.5], np.float32)], {}, ROW),
    ("Cast", [], {"to": TensorProto.FLOAT}, ROW),
    ("Flatten", [], {}, IMAGE),
    ("Reshape", [ints(0, -1)], {}, IMAGE),
    ("Reshape", [ints(-1, 256)], {}, IMAGE),
    ("Reshape", [ints(0, 16, -1)], {}, IMAGE),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, IMAGE),
    ("Unsqueeze", [ints(-1)], {}, ROW),
    ("Unsqueeze", [ints(1, 2)], {}, ROW),
    ("Squeeze", [ints(1)], {}, ("batch", 1, 4)),
    ("ReduceMean", [ints(2, 3)], {"keepdims": 0}, IMAGE),
    ("ReduceSum", [ints(-1)], {}, ROW),
    ("ReduceMax", [ints(1)], {}, ROW),
    ("GlobalAveragePool", [], {}, IMAGE),
    ("GlobalMaxPool", [], {}, IMAGE),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, IMAGE),
    ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, IMAGE),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, IMAGE),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, IMAGE),
    ("Gemm", [array(4, 3), array(3)], {}, ROW),
    ("Gemm", [array(3, 4)], {"transB": 1}, ROW),
    ("MatMul", [array(4, 3)], {}, ROW),
    ("MatMul", [array(8, 3)], {}, IMAGE),
    ("Conv", [array(6, 4, 3, 3), array(6)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}, IMAGE),
    ("Conv", [array(6, 2, 3, 3)], {"group": 2, "dilations": [2, 2]}, IMAGE),
    ("Conv", [array(6, 4, 3)], {}, ("batch", 4, 9)),
    ("BatchNormalization", [array(4), array(4), array(4), np.abs(array(4))], {"epsilon": 1e-3}, IMAGE),
    ("BatchNormalization", [array(4), array(4), array(4), np.abs(array(4))], {}, ROW),
    ("LayerNormalization", [array(4), array(4)], {"axis": -1}, ROW),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{len(case[1])}-{'-'.join(case[2])}")
def test_every_operator_agrees_with_onnxruntime(case: Case) -> None:
    name, constants, attributes, shape = case
    # A scale before the operator gives every graph something to train and a value that is not the raw input.
    tensors = {"scale": np.eye(int(shape[-1]), dtype=np.float32) * 0.7}
    inputs = ["scaled"]
    for index, constant in enumerate(constants):
        inputs.append("" if constant is None else f"c{index}")
        if constant is not None:
            tensors[f"c{index}"] = constant
    nodes = [
        helper.make_node("MatMul", ["features", "scale"], ["scaled"]),
        helper.make_node(name, inputs, ["scores"], **attributes),
    ]
    data = bytes_of(nodes, tensors, shape=shape)
    sizes = [int(size) for size in shape[1:]]
    imported = import_onnx(data)
    assert imported.input_shape == tuple(sizes)
    assert check_parity(data, imported.module, array(17, int(np.prod(sizes)))) <= 1e-5


def test_missing_values_gelu_and_concat_agree() -> None:
    mean, weight = array(4), array(8, 3)
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "mean", "features"], ["filled"]),
        helper.make_node("Gelu", ["filled"], ["left"], approximate="tanh"),
        helper.make_node("Concat", ["left", "filled"], ["both"], axis=1),
        helper.make_node("Gemm", ["both", "weight"], ["scores"]),
    ]
    data = bytes_of(nodes, {"mean": mean, "weight": weight}, opset=20)
    rows = array(17, 4)
    rows[::3, 1] = np.nan
    assert check_parity(data, import_onnx(data).module, rows) <= 1e-5


CONV = {"w": array(6, 4, 3, 3)}
CASTS = [
    helper.make_node("Cast", ["features"], ["whole"], to=TensorProto.INT64),
    helper.make_node("Cast", ["whole"], ["scores"], to=TensorProto.FLOAT),
]
REFUSED = [
    ([helper.make_node("Conv", ["features", "w"], ["scores"], "c", pads=[0, 1, 1, 1])], CONV, IMAGE, "pads"),
    ([helper.make_node("Conv", ["features", "w"], ["scores"], "c", auto_pad="SAME_UPPER")], CONV, IMAGE, "auto_pad"),
    ([helper.make_node("Gemm", ["features", "w"], ["scores"], "g", alpha=0.5)], {"w": array(4, 3)}, ROW, "alpha"),
    ([helper.make_node("Gemm", ["features", "w"], ["scores"], "g", transA=1)], {"w": array(4, 3)}, ROW, "transA"),
    ([helper.make_node("MaxPool", ["features"], ["scores"], "p", kernel_shape=[2, 2], ceil_mode=1)], {}, IMAGE, "ceil_mode"),
    (CASTS, {}, ROW, "float32"),
    ([helper.make_node("Reshape", ["features", "s"], ["scores"], "r")], {"s": ints(2, 8)}, ROW, "batch"),
    ([helper.make_node("Relu", ["features"], ["scores"], "r")], {}, ROW, "weights that can be trained"),
    ([helper.make_node("Flatten", ["features"], ["scores"], "f", axis=2)], {}, IMAGE, "axis"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[3])
def test_what_is_not_known_is_refused_by_name(case: tuple[list[Any], dict[str, np.ndarray], tuple[str | int, ...], str]) -> None:
    nodes, tensors, shape, says = case
    with pytest.raises(ModelUnsupported, match=says):
        import_onnx(bytes_of(nodes, tensors, shape=shape))


def test_layers_are_real_modules_and_the_trunk_stops_before_softmax() -> None:
    imported = import_onnx(sound_model().SerializeToString())
    kinds = [type(module).__name__ for module in imported.module.children()]
    assert kinds == ["Linear", "Linear", "Bias"]
    assert imported.squash == "Softmax"
    rows = torch.from_numpy(array(5, 4))
    assert torch.allclose(torch.softmax(imported.trunk(rows), 1), imported.module(rows))
    assert {link.initializer for link in imported.links} == {"w0", "b0", "w1", "b1"}
    twin = imported.twin()
    assert next(twin.module.parameters()) is next(twin.trunk.parameters())
    assert next(twin.module.parameters()) is not next(imported.module.parameters())


def test_standardisation_stays_fixed_and_a_shared_constant_is_not_trained() -> None:
    shared = np.ones(4, np.float32)
    nodes = [
        helper.make_node("Div", ["features", "shared"], ["a"]),
        helper.make_node("Gemm", ["a", "w", "shared"], ["scores"]),
    ]
    imported = import_onnx(bytes_of(nodes, {"shared": shared, "w": array(4, 4)}))
    assert [link.initializer for link in imported.links] == ["w"]


def test_weights_in_constant_nodes_are_trained_too() -> None:
    weight = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array(4, 3), "w"))
    imported = import_onnx(bytes_of([weight, helper.make_node("MatMul", ["features", "w"], ["scores"])]))
    assert [link.initializer for link in imported.links] == ["w"]
