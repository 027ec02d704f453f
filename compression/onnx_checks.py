"""What an ONNX file may hold, looked up before any library but protobuf reads it: counts, names, tensors, operators, attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line, shown
from .operator_sets import DOMAINS, ML_DOMAIN, ML_OPS, ML_OPSETS, OPSETS, SERVABLE_OPS

ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
}
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_NAME_LENGTH = 1_000
_SIZE = 1 << 20  # of a kernel, stride, dilation or padding
_INT32 = (1 << 31) - 1
# Readers of numbers that say axes or sizes: shape inference and kernels index by them, not all after a look.
_SIZED_BY = {
    "Reshape": "sizes",
    "Squeeze": "axes",
    "Unsqueeze": "axes",
    "ReduceMax": "axes",
    "ReduceMean": "axes",
    "ReduceSum": "axes",
}


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The bounds of what a model file may ask for; elements, features and products are counted per row of a batch."""

    size_bytes: int = 256 * 1024 * 1024
    nodes: int = 2_000
    tensors: int = 20_000
    value_elements: int = 20_000_000
    features: int = 200_000
    products: int = 20_000_000_000
    rank: int = 8


LIMITS = FileLimits()


def describe(node: NodeProto) -> str:
    """Return how messages name a node."""
    return f"{node.op_type} node {shown(node.name or ','.join(map(str, node.output)))}"


def check_counts(model: ModelProto, limits: FileLimits) -> None:
    """Raise where the file holds more parts than any model needs, or parts that none may have."""
    graph = model.graph
    if not graph.node:
        raise ArtifactInvalid("model graph must have nodes, got none")
    if len(graph.node) > limits.nodes:
        raise ModelUnsupported(f"model must have at most {limits.nodes} nodes, got {len(graph.node)}")
    for part, what in (
        (graph.initializer, "initializers"),
        (graph.input, "inputs"),
        (graph.value_info, "value descriptions"),
        (model.opset_import, "operator sets"),
    ):
        if len(part) > limits.tensors:
            raise ModelUnsupported(f"model must have at most {limits.tensors} {what}, got {len(part)}")
    links = sum(len(node.input) + len(node.output) + len(node.attribute) for node in graph.node)
    if links > 20 * limits.nodes:
        raise ModelUnsupported(f"nodes must have at most {20 * limits.nodes} inputs, outputs and attributes together, got {links}")
    for part, what in (
        (model.functions, "functions"),
        (model.training_info, "training info"),
        (model.configuration, "device settings"),
    ):
        if part:
            raise ModelUnsupported(f"model must have no {what}, got {len(part)}")
    if graph.sparse_initializer:
        raise ModelUnsupported("model must have no sparse initializers")


def check_names(model: ModelProto) -> None:
    """Raise ArtifactInvalid for a name that is no printable text: it would forge lines of logs, or end in an error of another kind."""
    for what, name in _names(model):
        if not isinstance(name, str) or not name.isprintable() or len(name) > _NAME_LENGTH:
            raise ArtifactInvalid(f"{what} must be printable text of at most {_NAME_LENGTH} characters, got {shown(name)}")


def check_opset(model: ModelProto) -> None:
    """Raise unless the nodes are of known operator sets, each in one version; what other sets the file imports is taken out."""
    graph = model.graph
    foreign = next((node for node in graph.node if node.domain not in (*DOMAINS, ML_DOMAIN)), None)
    if foreign is not None:
        raise ModelUnsupported(f"{describe(foreign)} must be of ai.onnx or {ML_DOMAIN}, got domain {shown(foreign.domain)}")
    kept = [("", _version(model, DOMAINS, OPSETS))]
    if any(node.domain == ML_DOMAIN for node in graph.node):
        kept.append((ML_DOMAIN, _version(model, (ML_DOMAIN,), ML_OPSETS)))
    del model.opset_import[:]
    for domain, version in kept:
        model.opset_import.add(domain=domain, version=version)


def _version(model: ModelProto, domains: tuple[str, ...], known: range) -> int:
    found = sorted({entry.version for entry in model.opset_import if entry.domain in domains})
    name = domains[-1]
    if len(found) != 1:
        raise ArtifactInvalid(f"model must import one operator set of {name}, got {found}")
    if found[0] not in known:
        raise ModelUnsupported(f"model opset of {name} must be {known[0]} to {known[-1]}, got {found[0]}")
    return int(found[0])


def check_tensors(model: ModelProto, limits: FileLimits) -> None:
    """Raise where a tensor is not whole, lies outside the file, or holds what is not a number."""
    for tensor, is_ml in _tensors(model):
        _check_tensor(tensor, limits)
        # NaN parts the sets of a TreeEnsemble, and is a key and a value of encoders.
        if not is_ml and tensor.data_type in _FLOATS and np.isnan(_array(tensor)).any():
            raise ArtifactInvalid(f"tensor {shown(tensor.name)} must hold numbers alone, got NaN")


def check_nodes(model: ModelProto, limits: FileLimits) -> None:
    """Raise where an operator is not on the list, or an attribute is no plain value within its range."""
    for node in model.graph.node:
        if node.op_type not in (ML_OPS if node.domain == ML_DOMAIN else SERVABLE_OPS):
            raise ModelUnsupported(f"{describe(node)}: operator {shown(node.op_type)} is not handled")
        if node.input and not node.input[-1]:
            # onnxruntime 1.31 ends with signal 11 on a LayerNormalization whose bias is there and empty.
            raise ModelUnsupported(f"{describe(node)}: an optional input at the end must be left out, not be empty")
        for attribute in node.attribute:
            graphs = attribute.HasField("g") or attribute.graphs or attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
            sparse = (
                attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.type_protos or attribute.HasField("tp")
            )
            if graphs or sparse or attribute.ref_attr_name:
                raise ModelUnsupported(f"{describe(node)}: attribute {shown(attribute.name)} must be a plain value")
            if node.domain != ML_DOMAIN:  # those are read by ml_checks.py
                _check_attribute(node, attribute, limits)
    _check_sizes(model, limits)


def _names(model: ModelProto) -> Iterator[tuple[str, object]]:
    yield from (("domain", entry.domain) for entry in model.opset_import)
    graph = model.graph
    yield from (("tensor name", tensor.name) for tensor in graph.initializer)
    for node in graph.node:
        yield from (("node name", node.name), ("operator", node.op_type), ("domain", node.domain))
        yield from (("input name", name) for name in node.input)
        yield from (("output name", name) for name in node.output)
        yield from (("attribute name", attribute.name) for attribute in node.attribute)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield "value name", value.name
        yield from (("dimension", dim.dim_param) for dim in value.type.tensor_type.shape.dim)


def _tensors(model: ModelProto) -> Iterator[tuple[TensorProto, bool]]:
    """Yield each tensor, and whether it is an attribute of an ai.onnx.ml node."""
    yield from ((tensor, False) for tensor in model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            held = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
            yield from ((tensor, node.domain == ML_DOMAIN) for tensor in held)


def _check_tensor(tensor: TensorProto, limits: FileLimits) -> None:
    name = shown(tensor.name)
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        raise ArtifactInvalid(f"tensor {name} must be stored inside the model file, got external data")
    if tensor.data_type == TensorProto.STRING:
        _check_texts(tensor)
        return
    item_bytes = ITEM_BYTES.get(tensor.data_type)
    if item_bytes is None:
        raise ModelUnsupported(f"tensor {name} must be of a plain number type, got ONNX type {tensor.data_type}")
    if tensor.HasField("segment") or len(tensor.dims) > limits.rank or any(dim < 0 for dim in tensor.dims):
        raise ArtifactInvalid(f"tensor {name} must be whole and of a sound shape, got {list(tensor.dims)[:16]}")
    count = math.prod(tensor.dims)
    if count * item_bytes > limits.size_bytes:
        raise ArtifactInvalid(f"tensor {name} must fit into {limits.size_bytes} bytes, got shape {list(tensor.dims)}")
    typed = len(tensor.float_data) + len(tensor.double_data) + len(tensor.int32_data) + len(tensor.int64_data)
    held = len(tensor.raw_data) // item_bytes if tensor.HasField("raw_data") else typed
    if held != count or len(tensor.raw_data) % item_bytes:
        raise ArtifactInvalid(f"tensor {name} must hold the {count} numbers of its shape, got {held}")


def _check_texts(tensor: TensorProto) -> None:
    name, count = shown(tensor.name), math.prod(tensor.dims)
    if tensor.HasField("raw_data") or tensor.HasField("segment") or any(dim < 0 for dim in tensor.dims):
        raise ArtifactInvalid(f"tensor {name} must hold its texts in one list")
    if len(tensor.string_data) != count:
        raise ArtifactInvalid(f"tensor {name} must hold the {count} texts of its shape, got {len(tensor.string_data)}")
    for text in tensor.string_data:
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            raise ArtifactInvalid(f"tensor {name} must hold text in UTF-8, got {shown(str(text[:50]))}") from None


def _array(tensor: TensorProto) -> NDArray[Any]:
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError) as problem:
        raise ArtifactInvalid(f"tensor {shown(tensor.name)} must be readable: {one_line(problem)}") from problem


def _check_attribute(node: NodeProto, attribute: AttributeProto, limits: FileLimits) -> None:
    name = attribute.name
    where = f"{describe(node)}: attribute {shown(name)}"
    if node.op_type == "Constant":
        if name.startswith("value_string") or attribute.strings or attribute.s:
            raise ModelUnsupported(f"{where} must hold numbers, got text")
        return
    if any(not math.isfinite(number) for number in (attribute.f, *attribute.floats)):
        raise ArtifactInvalid(f"{where} must be finite")
    whole = [attribute.i, *attribute.ints]
    if name in ("axis", "axes", "perm"):
        low, high = -limits.rank, limits.rank
    elif name in ("kernel_shape", "strides", "dilations", "pads", "group"):
        # Fields that are not set read as 0.
        low, high = 0, _SIZE
    else:
        low, high = -_INT32, _INT32
    wrong = [number for number in whole if not low <= number <= high]
    if wrong:
        raise ArtifactInvalid(f"{where} must be {low} to {high}, got {wrong[0]}")
    if (name in ("kernel_shape", "strides", "dilations") and 0 in attribute.ints) or (name == "group" and attribute.i < 1):
        raise ArtifactInvalid(f"{where} must be at least 1, got 0")
    if len(attribute.ints) > 2 * limits.rank:
        raise ArtifactInvalid(f"{where} must have at most {2 * limits.rank} numbers, got {len(attribute.ints)}")
    if name == "transA" and attribute.i:
        raise ModelUnsupported(f"{where} must be 0: the rows of a batch stay rows")
    if name == "to" and attribute.i not in ITEM_BYTES:
        raise ModelUnsupported(f"{where} must name a plain number type, got ONNX type {attribute.i}")


def _check_sizes(model: ModelProto, limits: FileLimits) -> None:
    """Check constants that say axes and sizes, wherever they are stored."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.output:
            attribute = node.attribute[0]
            if attribute.HasField("t"):
                held[node.output[0]] = attribute.t
            elif attribute.name in ("value_int", "value_ints"):
                numbers = attribute.ints if attribute.name == "value_ints" else [attribute.i]
                held[node.output[0]] = numpy_helper.from_array(np.array(numbers, np.int64))
    for node in model.graph.node:
        kind = _SIZED_BY.get(node.op_type)
        if kind is None or len(node.input) < 2 or node.input[1] not in held:
            continue
        tensor = held[node.input[1]]
        low, high = (-limits.rank, limits.rank) if kind == "axes" else (-1, _INT32)
        if tensor.data_type != TensorProto.INT64 or math.prod(tensor.dims) > limits.rank:
            raise ArtifactInvalid(f"{describe(node)}: {kind} must be at most {limits.rank} whole numbers of 64 bits")
        wrong = [number for number in _array(tensor).ravel().tolist() if not low <= number <= high]
        if wrong:
            raise ArtifactInvalid(f"{describe(node)}: {kind} must be {low} to {high}, got {wrong[0]}")
