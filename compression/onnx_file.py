"""ONNX bytes from strangers: parsed under limits, checked against an allow-list, cleaned before they are published."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.events import Signature

TRAINABLE_OPS = frozenset(
    {
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Flatten",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsNaN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "MatMul",
        "MaxPool",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
SERVABLE_OPS = TRAINABLE_OPS | {"QuantizeLinear", "DequantizeLinear"}
DOMAINS = ("", "ai.onnx")
OPSETS = range(13, 24)
_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
}


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Bound what a model file may ask for; elements are counted per row of a batch."""

    size_bytes: int = 256 * 1024 * 1024
    nodes: int = 2_000
    value_elements: int = 20_000_000
    rank: int = 8


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """Be what the graph itself says: `input_shape` without the batch, `output_columns` None where the graph does not say."""

    input_name: str
    output_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_columns: int | None
    opset: int

    @property
    def feature_count(self) -> int:
        """Return the number of numbers in one row."""
        return math.prod(self.input_shape)


LIMITS = FileLimits()


def load_onnx(data: bytes, limits: FileLimits = LIMITS) -> ModelProto:
    """Return the checked model in `data`.

    Raises ArtifactInvalid for bytes that are no sound single-file model, ModelUnsupported for a sound one outside the allow-list;
    both name the node, tensor or attribute. Nothing outside `data` is ever read.
    """
    if not 0 < len(data) <= limits.size_bytes:
        raise ArtifactInvalid(f"model file must have 1 to {limits.size_bytes} bytes, got {len(data)}")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as problem:
        raise ArtifactInvalid(f"model file must be ONNX: {problem}") from problem
    _check_header(model)
    for tensor in _tensors(model):
        _check_tensor(tensor, limits)
    _check_nodes(model, limits)
    _check_interface(model, limits)
    _check_by_onnx(model, limits)
    return model


def signature_of(data: bytes) -> GraphSignature:
    """Return the names and shapes of the model in `data`; raises as load_onnx."""
    return graph_signature(load_onnx(data))


def graph_signature(model: ModelProto) -> GraphSignature:
    """Return the names and shapes of a model that load_onnx gave."""
    source = _free_inputs(model)[0]
    dims = source.type.tensor_type.shape.dim
    columns = None
    for value in _inferred(model).graph.output[:1]:
        shape = value.type.tensor_type.shape.dim
        if len(shape) == 2 and shape[1].HasField("dim_value"):
            columns = shape[1].dim_value
    return GraphSignature(
        input_name=source.name,
        output_names=tuple(value.name for value in model.graph.output),
        input_shape=tuple(dim.dim_value for dim in dims[1:]),
        output_columns=columns,
        opset=model.opset_import[0].version,
    )


def check_signature(graph: GraphSignature, signature: Signature) -> None:
    """Raise ArtifactInvalid where the graph does not take and give what `signature` promises."""
    if graph.input_name != signature.input_name:
        raise ArtifactInvalid(f"model input must be {signature.input_name!r}, got {graph.input_name!r}")
    if signature.output_name not in graph.output_names:
        raise ArtifactInvalid(f"model output must be {signature.output_name!r}, got {list(graph.output_names)}")
    if graph.feature_count != len(signature.features):
        raise ArtifactInvalid(f"model input must have {len(signature.features)} features, got {graph.feature_count}")
    wanted = len(signature.classes) if signature.task == "classification" else 1
    first = graph.output_names[0] == signature.output_name
    if first and graph.output_columns is not None and graph.output_columns != wanted:
        raise ArtifactInvalid(f"model output {signature.output_name!r} must have {wanted} columns, got {graph.output_columns}")


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


def describe(node: NodeProto) -> str:
    """Return how messages name a node."""
    return f"{node.op_type} node {node.name or ','.join(node.output)!r}"


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


def _check_header(model: ModelProto) -> None:
    if not model.graph.node:
        raise ArtifactInvalid("model graph must have nodes, got none")
    for part, what in (
        (model.functions, "functions"),
        (model.training_info, "training info"),
        (model.configuration, "device settings"),
    ):
        if part:
            raise ModelUnsupported(f"model must have no {what}, got {len(part)}")
    if model.graph.sparse_initializer:
        raise ModelUnsupported("model must have no sparse initializers")
    foreign = sorted(entry.domain for entry in model.opset_import if entry.domain not in DOMAINS)
    if foreign:
        raise ModelUnsupported(f"model must use operators of ai.onnx alone, got domains {foreign}")
    versions = [entry.version for entry in model.opset_import]
    if len(versions) != 1:
        raise ArtifactInvalid(f"model must import one operator set, got {versions}")
    if versions[0] not in OPSETS:
        raise ModelUnsupported(f"model opset must be {OPSETS[0]} to {OPSETS[-1]}, got {versions[0]}")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t


def _check_tensor(tensor: TensorProto, limits: FileLimits) -> None:
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        raise ArtifactInvalid(f"tensor {tensor.name!r} must be stored inside the model file, got external data")
    item_bytes = _ITEM_BYTES.get(tensor.data_type)
    if item_bytes is None:
        raise ModelUnsupported(f"tensor {tensor.name!r} must be of a plain number type, got ONNX type {tensor.data_type}")
    if tensor.HasField("segment") or len(tensor.dims) > limits.rank or any(dim < 0 for dim in tensor.dims):
        raise ArtifactInvalid(f"tensor {tensor.name!r} must be whole and of a sound shape, got {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    if count * item_bytes > limits.size_bytes:
        raise ArtifactInvalid(f"tensor {tensor.name!r} must fit into {limits.size_bytes} bytes, got shape {list(tensor.dims)}")
    typed = len(tensor.float_data) + len(tensor.double_data) + len(tensor.int32_data) + len(tensor.int64_data)
    held = len(tensor.raw_data) // item_bytes if tensor.HasField("raw_data") else typed
    if held != count or len(tensor.raw_data) % item_bytes:
        raise ArtifactInvalid(f"tensor {tensor.name!r} must hold the {count} numbers of its shape, got {held}")


def _check_nodes(model: ModelProto, limits: FileLimits) -> None:
    if len(model.graph.node) > limits.nodes:
        raise ModelUnsupported(f"model must have at most {limits.nodes} nodes, got {len(model.graph.node)}")
    for node in model.graph.node:
        if node.domain not in DOMAINS:
            raise ModelUnsupported(f"{describe(node)} must be of ai.onnx, got domain {node.domain!r}")
        if node.op_type not in SERVABLE_OPS:
            raise ModelUnsupported(f"{describe(node)}: operator {node.op_type} is not handled")
        for attribute in node.attribute:
            graphs = attribute.HasField("g") or attribute.graphs or attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
            sparse = attribute.HasField("sparse_tensor") or attribute.sparse_tensors
            if graphs or sparse or attribute.ref_attr_name:
                raise ModelUnsupported(f"{describe(node)}: attribute {attribute.name!r} must be a plain value")


def _free_inputs(model: ModelProto) -> list[ValueInfoProto]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def _check_interface(model: ModelProto, limits: FileLimits) -> None:
    sources = _free_inputs(model)
    if len(sources) != 1:
        raise ModelUnsupported(f"model must have one input, got {[value.name for value in sources]}")
    if not 1 <= len(model.graph.output) <= 8:
        raise ArtifactInvalid(f"model must have 1 to 8 outputs, got {len(model.graph.output)}")
    source = sources[0]
    tensor_type = source.type.tensor_type
    if tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelUnsupported(f"model input {source.name!r} must be float32, got ONNX type {tensor_type.elem_type}")
    dims = tensor_type.shape.dim
    if not 2 <= len(dims) <= limits.rank or any(dim.dim_value < 1 for dim in dims[1:]):
        shape = [dim.dim_param or dim.dim_value for dim in dims]
        raise ModelUnsupported(f"model input {source.name!r} must be a batch of rows of fixed shape, got {shape}")
    if dims[0].HasField("dim_value"):
        raise ModelUnsupported(f"model input {source.name!r} must have a dynamic batch, got batches of {dims[0].dim_value}")
    if math.prod(dim.dim_value for dim in dims[1:]) > limits.value_elements:
        raise ArtifactInvalid(f"model input {source.name!r} must have at most {limits.value_elements} numbers a row")


def _check_by_onnx(model: ModelProto, limits: FileLimits) -> None:
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as problem:
        raise ArtifactInvalid(f"model must pass the ONNX checker: {problem}") from problem
    for value in _inferred(model).graph.value_info:
        # The first dimension is the batch, or a size of the model that the product bounds all the same.
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        if len(sizes) > limits.rank or math.prod(sizes) > limits.value_elements:
            raise ArtifactInvalid(f"value {value.name!r} must have at most {limits.value_elements} numbers a row, got {sizes}")


def _inferred(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=False)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError) as problem:
        raise ArtifactInvalid(f"model must have consistent shapes: {problem}") from problem


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
