"""ONNX bytes from strangers: parsed under limits, checked against an allow-list, cleaned before they are published."""

from __future__ import annotations

import math

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line, shown
from .graph_cost import Shapes, check_cost, check_sizes, shapes_at
from .graph_signature import BATCHES, GraphOutput, GraphSignature
from .ml_checks import check_ml
from .onnx_checks import LIMITS, FileLimits, check_counts, check_names, check_nodes, check_opset, check_tensors, describe

# What a converter may put behind the last activation without changing what the numbers mean.
_PASSED = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"})


def load_onnx(data: bytes, limits: FileLimits = LIMITS) -> ModelProto:
    """Return the checked model in `data`; operator sets that no node uses are taken out of it.

    Raises ArtifactInvalid for bytes that are no sound single-file model, ModelUnsupported for a sound one outside the allow-list;
    both name the node, tensor or attribute. Nothing outside `data` is ever read. A file from strangers can still end the process
    that reads it: streams/model_trial.py does this in a child.
    """
    model = parse_onnx(data, limits)
    check_opset(model)
    check_tensors(model, limits)
    check_nodes(model, limits)
    _check_interface(model, limits)
    check_by_onnx(model)
    check_sizes(model)
    check_ml(model, check_cost(model, limits), limits)
    return model


def parse_onnx(data: bytes, limits: FileLimits) -> ModelProto:
    """Return the model in `data`, of which nothing is known but that its parts are not too many and its names are text.

    Raises ArtifactInvalid, ModelUnsupported.
    """
    if not 0 < len(data) <= limits.size_bytes:
        raise ArtifactInvalid(f"model file must have 1 to {limits.size_bytes} bytes, got {len(data)}")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError, RecursionError) as problem:
        raise ArtifactInvalid(f"model file must be ONNX: {one_line(problem)}") from problem
    check_counts(model, limits)
    check_names(model)
    return model


def check_by_onnx(model: ModelProto) -> None:
    """Raise ArtifactInvalid where onnx itself finds the model wrong."""
    try:
        onnx.checker.check_model(model, full_check=False)
    except Exception as problem:  # onnx raises what its parts raise, some of it straight from C++
        raise ArtifactInvalid(f"model must pass the ONNX checker: {one_line(problem)}") from problem


def signature_of(data: bytes) -> GraphSignature:
    """Return the names and shapes of the model in `data`; raises as load_onnx."""
    return graph_signature(load_onnx(data))


def graph_signature(model: ModelProto) -> GraphSignature:
    """Return the names and shapes of a model that load_onnx gave."""
    source = _free_inputs(model)[0]
    shapes = shapes_at(model, BATCHES[0])
    return GraphSignature(
        input_name=source.name,
        outputs=tuple(_output(model, value, shapes) for value in model.graph.output),
        input_shape=tuple(dim.dim_value for dim in source.type.tensor_type.shape.dim[1:]),
        opset=model.opset_import[0].version,
    )


def clean(model: ModelProto) -> bytes:
    """Return the bytes to publish: the same graph without what exporters leak; equal models give equal bytes.

    The torch exporter writes source paths and source lines into node metadata, and shape entries for initializers that
    onnxruntime's quantizer trips over (microsoft/onnxruntime#25890).
    """
    model = _copy(model)
    graph = model.graph
    held = {tensor.name for tensor in graph.initializer}
    kept = sorted((value for value in graph.value_info if value.name not in held), key=lambda value: value.name)
    values = [*graph.input, *graph.output, *kept]
    for part in (model, graph, *graph.node, *graph.initializer, *values):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    rest = [_copy_value(value) for value in kept]
    del graph.value_info[:]
    graph.value_info.extend(rest)
    model.producer_name, model.producer_version, model.model_version = "driftloop", "", 0
    graph.name = "driftloop"
    model.metadata_props.add(key="driftloop.format", value="1")
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as problem:
        raise ArtifactInvalid(f"model must fit into one file of 2 GB: {problem}") from problem


def lift_constants(model: ModelProto) -> ModelProto:
    """Return a copy in which Constant nodes and Identity nodes over initializers are initializers of their own name."""
    model = _copy(model)
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        tensor = _constant_tensor(node, held)
        if tensor is None or node.output[0] in outputs:
            kept.append(node)
            continue
        held[node.output[0]] = lifted = TensorProto()
        lifted.CopyFrom(tensor)
        lifted.name = node.output[0]
        graph.initializer.append(lifted)
    nodes = [_copy_node(node) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | outputs
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = []
    for tensor in tensors:
        copies.append(TensorProto())
        copies[-1].CopyFrom(tensor)
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return model


def _constant_tensor(node: NodeProto, held: dict[str, TensorProto]) -> TensorProto | None:
    if node.op_type == "Identity" and node.input[0] in held:
        return held[node.input[0]]
    if node.op_type != "Constant":
        return None
    if len(node.attribute) != 1:
        raise ModelUnsupported(f"{describe(node)} must have one attribute, got {len(node.attribute)}")
    attribute = node.attribute[0]
    if attribute.name == "value":
        held_inside: TensorProto = attribute.t
        return held_inside
    if attribute.name in ("value_float", "value_floats"):
        numbers = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
        shape = [] if attribute.name == "value_float" else [len(numbers)]
        return onnx.helper.make_tensor("constant", TensorProto.FLOAT, shape, numbers)
    if attribute.name in ("value_int", "value_ints"):
        whole = [attribute.i] if attribute.name == "value_int" else list(attribute.ints)
        return onnx.helper.make_tensor("constant", TensorProto.INT64, [] if attribute.name == "value_int" else [len(whole)], whole)
    raise ModelUnsupported(f"{describe(node)} must hold a tensor or numbers, got attribute {attribute.name!r}")


def _free_inputs(model: ModelProto) -> list[ValueInfoProto]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def _check_interface(model: ModelProto, limits: FileLimits) -> None:
    sources = _free_inputs(model)
    if len(sources) != 1:
        raise ModelUnsupported(f"model must have one input, got {len(sources)}: {[value.name[:50] for value in sources[:8]]}")
    if not 1 <= len(model.graph.output) <= 8:
        raise ArtifactInvalid(f"model must have 1 to 8 outputs, got {len(model.graph.output)}")
    source = sources[0]
    where = f"model input {shown(source.name)}"
    tensor_type = source.type.tensor_type
    if tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelUnsupported(f"{where} must be float32, got ONNX type {tensor_type.elem_type}")
    dims = tensor_type.shape.dim
    if not 2 <= len(dims) <= limits.rank or any(dim.dim_value < 1 for dim in dims[1:]):
        shape = [dim.dim_param or dim.dim_value for dim in dims[: limits.rank + 1]]
        raise ModelUnsupported(f"{where} must be a batch of rows of fixed shape, got {shape}")
    if dims[0].HasField("dim_value"):
        raise ModelUnsupported(f"{where} must have a dynamic batch, got batches of {dims[0].dim_value}")
    features = math.prod(dim.dim_value for dim in dims[1:])
    if features > limits.features:
        raise ArtifactInvalid(f"{where} must have at most {limits.features} numbers a row, got {features}")


def _output(model: ModelProto, value: ValueInfoProto, shapes: Shapes) -> GraphOutput:
    shape = shapes.get(value.name)
    rows = columns = None
    if shape is not None:
        rows = shape[0] if shape else 1
        rest = [size for size in shape[1:] if size is not None]
        columns = math.prod(rest) if len(rest) == len(shape[1:]) else None
    return GraphOutput(value.name, value.type.tensor_type.elem_type, rows, columns, _is_sigmoid(model, value.name))


def _is_sigmoid(model: ModelProto, name: str) -> bool:
    made_by = {output: node for node in model.graph.node for output in node.output}
    # A sound graph has no circles, but this must end on any.
    for _ in range(len(made_by)):
        node = made_by.get(name)
        if node is None or node.op_type not in _PASSED:
            return node is not None and _squashes(node)
        name = node.input[0]
    return False


def _squashes(node: NodeProto) -> bool:
    if node.op_type == "TreeEnsembleRegressor":
        return any(one.name == "post_transform" and one.s == b"LOGISTIC" for one in node.attribute)
    return str(node.op_type) == "Sigmoid"


def _copy(model: ModelProto) -> ModelProto:
    twin = ModelProto()
    twin.CopyFrom(model)
    return twin


def _copy_node(node: NodeProto) -> NodeProto:
    twin = NodeProto()
    twin.CopyFrom(node)
    return twin


def _copy_value(value: ValueInfoProto) -> ValueInfoProto:
    twin = ValueInfoProto()
    twin.CopyFrom(value)
    return twin
