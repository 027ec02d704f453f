"""One matrix: whatever inputs a graph has become one of float32, a column a feature; nodes put before it hand the columns on.

So rows are the same numbers for every model. A text column becomes the place of the text among those that the graph knows; every other
text, and none, is -1, which the graph reads as a text that it does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import shown
from .onnx_checks import FileLimits, describe
from .operator_sets import ML_DOMAIN, ML_OPSETS
from .text_columns import texts_of

_PLAIN = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)
UNKNOWN = "driftloop: a text that the model does not know"
MISSING = -1


@dataclass(slots=True)
class Columns:
    """The features of the matrix: names, the texts of those that are categories, and what to say of the change."""

    features: list[str] = field(default_factory=list)
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class _Prologue:
    """Nodes and constants that stand before the graph's own."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = model.graph
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._taken |= {one.name for one in (*model.graph.initializer, *model.graph.input)}

    def name(self, wanted: str) -> str:
        """Return `wanted`, or one like it that nothing has."""
        name = next(name for at in range(len(self._taken) + 1) if (name := f"{wanted}{at or ''}") not in self._taken)
        self._taken.add(name)
        return name

    def constant(self, values: NDArray[np.generic]) -> str:
        """Store a constant and return its name."""
        name = self.name("driftloop_constant")
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Add a node and return the name of what it makes."""
        made = output if output else self.name(f"driftloop_{operator.lower()}")
        self.nodes.append(helper.make_node(operator, list(inputs), [made], made, **attributes))  # type: ignore[arg-type]
        return made


def to_one_matrix(model: ModelProto, limits: FileLimits) -> Columns:
    """Make the inputs of `model` one matrix of float32 where they are anything else; raises ArtifactInvalid, ModelUnsupported."""
    held = {tensor.name for tensor in model.graph.initializer}
    sources = [value for value in model.graph.input if value.name not in held]
    columns = Columns()
    if not sources or _is_matrix(sources):
        return columns
    if len(sources) > limits.features:
        raise ArtifactInvalid(f"model must have at most {limits.features} inputs, got {len(sources)}")
    prologue, widths = _Prologue(model), [_width(value, limits) for value in sources]
    if sum(widths) > limits.features:
        raise ArtifactInvalid(f"model inputs must have at most {limits.features} numbers a row, got {sum(widths)}")
    matrix = prologue.name("features" if len(sources) > 1 else f"{sources[0].name}_numbers")
    start = 0
    for value, width in zip(sources, widths, strict=True):
        names = [value.name] if width == 1 and len(sources) > 1 else [f"{value.name}_{at}" for at in range(width)]
        part = matrix
        if len(sources) > 1:
            part = prologue.node("Gather", matrix, prologue.constant(np.arange(start, start + width)), axis=1)
        _hand_on(model, prologue, value, part)
        columns.features += names
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            columns.categories |= dict.fromkeys(names, texts_of(model, value.name))
        start += width
    told = ", ".join(shown(value.name) for value in sources[:8]) + (", ..." if len(sources) > 8 else "")
    columns.notes.append(f"the input is one matrix {shown(matrix)} of {sum(widths)} numbers, in place of {told}")
    _replace(model, prologue, {value.name for value in sources}, (matrix, sum(widths)))
    return columns


def _is_matrix(sources: list[ValueInfoProto]) -> bool:
    tensor_type = sources[0].type.tensor_type
    return len(sources) == 1 and tensor_type.elem_type == TensorProto.FLOAT and len(tensor_type.shape.dim) > 1


def _width(value: ValueInfoProto, limits: FileLimits) -> int:
    """Return how many numbers a row of an input has."""
    where, tensor_type = f"model input {shown(value.name)}", value.type.tensor_type
    if tensor_type.elem_type not in (*_PLAIN, *_WHOLE, TensorProto.STRING):
        raise ModelUnsupported(f"{where} must hold numbers or texts, got ONNX type {tensor_type.elem_type}")
    dims = tensor_type.shape.dim
    if not 1 <= len(dims) <= limits.rank or any(dim.dim_value < 1 for dim in dims[1:]):
        shape = [dim.dim_param or dim.dim_value for dim in dims[: limits.rank + 1]]
        raise ModelUnsupported(f"{where} must be a batch of rows of fixed shape, got {shape}: export it with its number of columns")
    return math.prod(dim.dim_value for dim in dims[1:])


def _hand_on(model: ModelProto, prologue: _Prologue, value: ValueInfoProto, part: str) -> None:
    """Make an input of the graph from its columns of the matrix."""
    kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    if len(dims) != 2:
        part = prologue.node("Reshape", part, prologue.constant(np.array([-1, *(dim.dim_value for dim in dims[1:])])))
    if kind not in _PLAIN:
        gap = prologue.node("IsNaN", part)
        part = prologue.node("Where", gap, prologue.constant(np.array(MISSING, np.float32)), part)
    if kind == TensorProto.STRING:
        texts = texts_of(model, value.name)
        whole = prologue.node("Cast", part, to=TensorProto.INT64)
        prologue.node(
            "LabelEncoder",
            whole,
            output=value.name,
            domain=ML_DOMAIN,
            keys_int64s=[MISSING, *range(len(texts))],
            values_strings=[UNKNOWN, *texts],
            default_string=UNKNOWN,
        )
    elif kind == TensorProto.FLOAT:
        prologue.node("Identity", part, output=value.name)
    else:
        prologue.node("Cast", part, output=value.name, to=kind)


def _replace(model: ModelProto, prologue: _Prologue, old: set[str], matrix: tuple[str, int]) -> None:
    graph = model.graph
    nodes = [*prologue.nodes, *(NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [ValueInfoProto.FromString(one.SerializeToString()) for one in graph.input if one.name not in old]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(matrix[0], TensorProto.FLOAT, ["batch", matrix[1]]))
    graph.input.extend(kept)
    encoders = any(node.domain == ML_DOMAIN for node in prologue.nodes)
    versions = [entry for entry in model.opset_import if entry.domain == ML_DOMAIN]
    if encoders and not versions:
        model.opset_import.add(domain=ML_DOMAIN, version=ML_OPSETS[0] + 1)
    elif encoders and versions[0].version < 2:
        raise_encoders(model, versions[0])


def raise_encoders(model: ModelProto, entry: object) -> None:
    """Say in operator set 2 what a graph of set 1 says; only its LabelEncoder means something else there."""
    old = next((node for node in model.graph.node if node.op_type == "LabelEncoder" and _has(node, "classes_strings")), None)
    if old is not None:
        raise ModelUnsupported(
            f"{describe(old)} must be of operator set 2 of {ML_DOMAIN} or later: export the model with a later one"
        )
    entry.version = 2  # type: ignore[attr-defined]


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)
