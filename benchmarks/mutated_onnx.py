"""Mutated model files for `fuzz_onnx.py`: real graphs with flipped bytes, extreme attributes, shapes and names, rewired and grown."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from driftloop.compression.operator_sets import ML_OPS, SERVABLE_OPS

Rng = np.random.Generator
EXPORTS = Path(__file__).parent.parent / "tests" / "exports"
EXPORTED = (
    "sk_forest_three",
    "sk_boosting",
    "sk_robust",
    "sk_binned",
    "sk_svc_three",
    "sk_logistic_words",
    "lgb",
    "xgb",
    "cat_words",
)
OPS = (*sorted(SERVABLE_OPS), "Loop", "If", "Scan", "Gather", "Expand", "Tile", "ConstantOfShape", "Resize", "LSTM", "Einsum")
WHOLE = (0, 1, -1, 2, -2, 3, 7, 8, -8, 127, 255, 65_536, 2**31 - 1, -(2**31), 2**31, 2**32, 2**40, 2**62, -(2**63), 2**63 - 1)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), -float("inf"), float("nan"))
NAMES = ("", "features", "scores", "a\nb", "\x1b[31m", "x" * 5_000, "\u202e", "a\x00b", "\ufeff", "b")
NAMED = (
    "axis",
    "axes",
    "perm",
    "to",
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "group",
    "alpha",
    "epsilon",
    "keepdims",
    "value",
)


def mutated(seed: int, number: int) -> bytes:
    """Return file `number` of a seed."""
    rng = np.random.default_rng((seed, number))
    bases = base_files()
    data = bases[int(rng.integers(len(bases)))]
    if rng.random() < 0.75:
        model = ModelProto()
        model.ParseFromString(data)
        for _ in range(int(rng.integers(1, 5))):
            try:
                MUTATIONS[int(rng.integers(len(MUTATIONS)))](model, rng)
            except Exception:
                continue  # protobuf or onnx itself does not take this one
        data = model.SerializeToString()
    if rng.random() < 0.35:
        data = flipped(data, rng)
    return data


@cache
def base_files() -> tuple[bytes, ...]:
    """Return the sound graphs that mutations begin with."""
    rng = np.random.default_rng(0)
    exports = tuple((EXPORTS / f"{name}.onnx").read_bytes() for name in EXPORTED)
    return _dense(rng), _image(rng), _gaps(rng), _whole(rng), *exports


def _of(rng: Rng, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return rng.normal(size=shape).astype(np.float32)


def _dense(rng: Rng) -> bytes:
    nodes = [
        helper.make_node("Gemm", ["features", "w0", "b0"], ["a"], "first", transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("LayerNormalization", ["b", "s", "s"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w1"], ["c"]),
        helper.make_node("Add", ["c", "b1"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    held = {"w0": _of(rng, 8, 4), "b0": _of(rng, 8), "s": np.ones(8, np.float32), "w1": _of(rng, 8, 3), "b1": _of(rng, 3)}
    return _file(nodes, held, ["n", 4])


def _image(rng: Rng) -> bytes:
    nodes = [
        helper.make_node("Conv", ["features", "k"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        helper.make_node("BatchNormalization", ["a", "one", "zero", "zero", "one"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["r"], alpha=0.1),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["p"], ["q"], kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["scores"]),
    ]
    held = {"k": _of(rng, 4, 1, 3, 3), "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32), "w": _of(rng, 36, 2)}
    return _file(nodes, held, ["n", 1, 8, 8])


def _gaps(rng: Rng) -> bytes:
    nodes = [
        helper.make_node("IsNaN", ["features"], ["gap"]),
        helper.make_node("Where", ["gap", "fill", "features"], ["whole"]),
        helper.make_node("Sub", ["whole", "fill"], ["m"]),
        helper.make_node("Div", ["m", "scale"], ["d"]),
        helper.make_node("Concat", ["d", "d"], ["e"], axis=1),
        helper.make_node("Reshape", ["e", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["t", "axes"], ["u"], keepdims=0),
        helper.make_node("Unsqueeze", ["u", "axes"], ["v"]),
        helper.make_node("Squeeze", ["v", "axes"], ["w"]),
        helper.make_node("Clip", ["w", "low"], ["x"]),
        helper.make_node("Sigmoid", ["x"], ["scores"]),
    ]
    held = {
        "fill": _of(rng, 4),
        "scale": np.ones(4, np.float32),
        "shape": np.array([-1, 2, 4], np.int64),
        "axes": np.array([2], np.int64),
        "low": np.array(-3, np.float32),
    }
    return _file(nodes, held, ["n", 4])


def _whole(rng: Rng) -> bytes:
    nodes = [
        helper.make_node("QuantizeLinear", ["features", "qs", "qz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "qs", "qz"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["y"], axis=1),
        helper.make_node("MatMul", ["x", "y"], ["m"]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(_of(rng, 3))),
        helper.make_node("Mul", ["m", "c"], ["n"]),
        helper.make_node("Cast", ["n"], ["o"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["o"], ["scores"]),
    ]
    held = {
        "qs": np.array(0.1, np.float32),
        "qz": np.array(128, np.uint8),
        "w": rng.integers(-9, 9, (4, 3)).astype(np.int8),
        "ws": np.ones(3, np.float32),
        "wz": np.zeros(3, np.int8),
    }
    return _file(nodes, held, ["n", 4])


def _file(nodes: list[NodeProto], held: dict[str, np.ndarray], shape: list[int | str]) -> bytes:  # type: ignore[type-arg]
    graph = helper.make_graph(
        nodes,
        "base",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def flipped(data: bytes, rng: Rng) -> bytes:
    """Return the bytes with some flipped, cut out or said twice."""
    kind = rng.random()
    at = int(rng.integers(len(data)))
    if kind < 0.6:
        twin = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(len(twin), size=int(rng.integers(1, 9)))
        twin[where] = rng.integers(256, size=len(where))
        return twin.tobytes()
    if kind < 0.8:
        return data[:at] + data[at + int(rng.integers(1, 64)) :]
    return data[:at] + data[at : at + int(rng.integers(1, 256))] + data[at:]


def _any(rng: Rng, several: object) -> object:
    return several[int(rng.integers(len(several)))]  # type: ignore[index,arg-type]


def _node(model: ModelProto, rng: Rng) -> NodeProto:
    found: NodeProto = _any(rng, model.graph.node)  # type: ignore[assignment]
    return found


def _values(model: ModelProto) -> list[str]:
    graph = model.graph
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    return names + [name for node in graph.node for name in node.output]


def attribute(model: ModelProto, rng: Rng) -> None:
    """Set an attribute to an extreme, or add one."""
    node = _node(model, rng)
    if not node.attribute or rng.random() < 0.2:
        value = _any(rng, ([int(n) for n in rng.choice(np.array(WHOLE[:14]), 2)], 1, 0.5, "text", _any(rng, WHOLE)))
        node.attribute.append(helper.make_attribute(str(_any(rng, NAMED)), value))
        return
    found: AttributeProto = _any(rng, node.attribute)  # type: ignore[assignment]
    if found.ints:
        at = int(rng.integers(len(found.ints)))
        found.ints[at] = int(_any(rng, WHOLE))  # type: ignore[call-overload]
        if rng.random() < 0.2:
            found.ints.extend(int(n) for n in rng.choice(np.array(WHOLE[:14]), int(rng.integers(1, 40))))
    elif found.type == AttributeProto.FLOAT:
        found.f = float(_any(rng, NUMBERS))  # type: ignore[arg-type]
    elif found.type == AttributeProto.TENSOR:
        _spoil(found.t, rng)
    else:
        found.i = int(_any(rng, WHOLE))  # type: ignore[call-overload]
    if rng.random() < 0.1:
        found.type = int(rng.integers(0, 16))  # type: ignore[assignment]


def listed(model: ModelProto, rng: Rng) -> None:
    """Spoil a list of an ai.onnx.ml node: one entry or all of them, its length, or its order."""
    nodes = [node for node in model.graph.node if node.domain]
    node: NodeProto = _any(rng, nodes)  # type: ignore[assignment]
    lists = [one for one in node.attribute if one.ints or one.floats or one.strings]
    found: AttributeProto = _any(rng, lists)  # type: ignore[assignment]
    part, extremes = next(
        (part, extremes)
        for part, extremes in (
            (found.ints, WHOLE),
            (found.floats, NUMBERS),
            (found.strings, (b"LEAF", b"BRANCH_EQ", b"", b"\xff", b"x" * 20_000)),
        )
        if part
    )
    values = list(part)
    kind = int(rng.integers(6))
    at = int(rng.integers(len(values)))
    if kind == 0:
        values[at] = _any(rng, extremes)
    elif kind == 1:
        values[at] = _any(rng, values)
    elif kind == 2:
        values = values[:at]
    elif kind == 3:
        values += values[: at + 1]
    elif kind == 4:
        values = [values[int(one)] for one in rng.permutation(len(values))]
    else:
        values = [_any(rng, extremes)] * len(values)
    del part[:]  # type: ignore[attr-defined]
    part.extend(values)  # type: ignore[attr-defined]


def tensor(model: ModelProto, rng: Rng) -> None:
    """Give a tensor other numbers, shape, type or place."""
    found: TensorProto = _any(rng, model.graph.initializer)  # type: ignore[assignment]
    _spoil(found, rng)


def _spoil(found: TensorProto, rng: Rng) -> None:
    kind = int(rng.integers(6))
    if kind == 0:
        found.dims[:] = [int(n) for n in rng.choice(np.array(WHOLE), int(rng.integers(0, 11)))]
    elif kind == 1:
        found.data_type = int(rng.integers(0, 24))
    elif kind == 2:
        found.raw_data = found.raw_data[: int(rng.integers(len(found.raw_data) + 1))]
    elif kind == 3:
        filled = np.full(numpy_helper.to_array(found).shape, _any(rng, NUMBERS), np.float32)
        found.CopyFrom(numpy_helper.from_array(filled, found.name))
    elif kind == 4 and found.data_type == TensorProto.INT64:
        count = int(rng.integers(1, 12))
        found.CopyFrom(numpy_helper.from_array(rng.choice(np.array(WHOLE), count), found.name))
    else:
        found.data_location = TensorProto.EXTERNAL
        found.external_data.add(key="location", value="/etc/passwd")


def names(model: ModelProto, rng: Rng) -> None:
    """Give a part another name."""
    name = str(_any(rng, NAMES))
    node = _node(model, rng)
    kind = int(rng.integers(6))
    if kind == 0:
        node.name = name
    elif kind == 1 and node.output:
        node.output[int(rng.integers(len(node.output)))] = name
    elif kind == 2 and node.input:
        node.input[int(rng.integers(len(node.input)))] = name
    elif kind == 3:
        model.graph.input[0].name = name
    elif kind == 4:
        model.graph.output[0].name = name
    else:
        model.graph.initializer[0].name = name


def wires(model: ModelProto, rng: Rng) -> None:
    """Connect nodes otherwise, drop one, say one twice, or change the order."""
    nodes = model.graph.node
    kind = int(rng.integers(5))
    if kind == 0:
        del nodes[int(rng.integers(len(nodes)))]
    elif kind == 1:
        nodes.append(_node(model, rng))
    elif kind == 2:
        order = [nodes[int(at)] for at in rng.permutation(len(nodes))]
        copies = [NodeProto.FromString(one.SerializeToString()) for one in order]
        del nodes[:]
        nodes.extend(copies)
    else:
        node = _node(model, rng)
        node.input[int(rng.integers(len(node.input)))] = str(_any(rng, _values(model)))


def operator(model: ModelProto, rng: Rng) -> None:
    """Make a node another operator's, or of another domain."""
    node = _node(model, rng)
    node.op_type = str(_any(rng, sorted(ML_OPS) if node.domain and rng.random() < 0.8 else OPS))
    if rng.random() < 0.1:
        node.domain = str(_any(rng, ("ai.onnx.ml", "com.microsoft", "ai.onnx", "a\nb")))


def shapes(model: ModelProto, rng: Rng) -> None:
    """Change what the input or output says of its shape and type."""
    value = _any(rng, (model.graph.input[0], model.graph.output[0]))
    tensor_type = value.type.tensor_type  # type: ignore[attr-defined]
    kind = int(rng.integers(4))
    if kind == 0:
        tensor_type.elem_type = int(rng.integers(0, 24))
    elif kind == 1:
        tensor_type.shape.dim.add().dim_value = int(_any(rng, WHOLE))  # type: ignore[call-overload]
    elif kind == 2:
        tensor_type.ClearField("shape")
    else:
        dim = _any(rng, tensor_type.shape.dim)
        dim.dim_value = int(_any(rng, WHOLE))  # type: ignore[attr-defined,call-overload]


def header(model: ModelProto, rng: Rng) -> None:
    """Change versions, domains and what else a file may hold."""
    kind = int(rng.integers(5))
    if kind == 0:
        model.opset_import[0].version = int(_any(rng, (13, 17, 18, 21, 23, 24, 99, *WHOLE)))  # type: ignore[call-overload]
    elif kind == 1:
        model.opset_import.add(domain=str(_any(rng, ("ai.onnx.ml", "com.microsoft", "x\ny"))), version=1)
    elif kind == 2:
        model.ir_version = int(_any(rng, (3, 4, 8, 10, 11, 99, *WHOLE)))  # type: ignore[call-overload]
    elif kind == 3:
        twin = model.graph.value_info.add()
        twin.CopyFrom(model.graph.output[0])
        twin.name = str(_any(rng, _values(model)))
    else:
        model.functions.add(name="f", domain="d")


def growth(model: ModelProto, rng: Rng) -> None:
    """Append nodes that make more and more of a value, and make the last of them the output."""
    last = str(_any(rng, _values(model)))
    kind = str(_any(rng, ("Concat", "MatMul", "Add", "Mul", "Exp", "Pow", "Transpose", "Unsqueeze")))
    for index in range(int(rng.integers(1, 40))):
        name = f"grown{index}"
        inputs = [last] if kind in ("Exp", "Transpose") else [last, last]
        extra = {"axis": int(rng.integers(-3, 4))} if kind == "Concat" else {}
        model.graph.node.append(helper.make_node(kind, inputs, [name], **extra))
        last = name
    if rng.random() < 0.5:
        model.graph.output[0].name = last


def inserted(model: ModelProto, rng: Rng) -> None:
    """Insert a node of any operator on the list over values that are there."""
    known = _values(model)
    inputs = [str(_any(rng, known)) for _ in range(int(rng.integers(0, 5)))]
    outputs = [f"made{int(rng.integers(1_000))}_{at}" for at in range(int(rng.integers(1, 4)))]
    made = helper.make_node(str(_any(rng, OPS)), inputs, outputs)
    for _ in range(int(rng.integers(0, 3))):
        made.attribute.append(helper.make_attribute(str(_any(rng, NAMED)), _any(rng, WHOLE)))
    model.graph.node.insert(int(rng.integers(len(model.graph.node) + 1)), made)
    if rng.random() < 0.3:
        model.graph.output[0].name = outputs[0]


MUTATIONS: tuple[Callable[[ModelProto, Rng], None], ...] = (
    attribute,
    attribute,
    listed,
    listed,
    tensor,
    names,
    wires,
    operator,
    shapes,
    header,
    growth,
    inserted,
)
