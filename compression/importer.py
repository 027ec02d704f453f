"""ONNX into torch: an fx graph with real, trainable Linear, Conv and BatchNorm modules; what is not known is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, numpy_helper
from torch import fx, nn

from ..schemas.errors import ModelUnsupported
from .onnx_checks import describe
from .onnx_file import graph_signature, lift_constants, load_onnx

Constant = NDArray[Any]


@dataclass(frozen=True, slots=True)
class WeightLink:
    """Tie a parameter or buffer of the module to the initializer it came from; `transposed` as MatMul stores its weight."""

    path: str
    initializer: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """Be a model in torch.

    `module` gives what the ONNX gives; `trunk` shares its weights and stops before a last Softmax or Sigmoid, so that losses are
    taken from logits. `input_shape` is without the batch. `squash` names the activation the trunk leaves out, or is empty.
    """

    module: fx.GraphModule
    trunk: fx.GraphModule
    links: tuple[WeightLink, ...]
    input_shape: tuple[int, ...]
    squash: str = ""

    def twin(self) -> ImportedModel:
        """Return a copy with weights of its own."""
        module, trunk = copy.deepcopy((self.module, self.trunk))
        return ImportedModel(module, trunk, self.links, self.input_shape, self.squash)


@dataclass(slots=True)
class Builder:
    """Hold what import knows so far; operators read inputs from it and add nodes to it."""

    graph: fx.Graph
    root: nn.Module
    constants: dict[str, Constant]
    ranks: dict[str, int]
    opset: int
    values: dict[str, fx.Node] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    links: list[WeightLink] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)

    def attributes(self, node: NodeProto, **defaults: Any) -> dict[str, Any]:
        """Return the attributes of `node` over `defaults`; one that has no default here is refused by name."""
        found = dict(defaults)
        for attribute in node.attribute:
            if attribute.name not in defaults:
                raise ModelUnsupported(f"{describe(node)}: attribute {attribute.name!r} is not handled")
            found[attribute.name] = _attribute_value(node, attribute)
        return found

    def argument(self, node: NodeProto, index: int) -> fx.Node:
        """Return input `index` as a value of the graph, a constant as a fixed buffer."""
        name = self.name(node, index)
        if name in self.values:
            return self.values[name]
        if name not in self.constants:
            raise ModelUnsupported(f"{describe(node)}: input {name!r} is not known")
        buffer = self.path("constant")
        array = self.constants[name]
        tensor = torch.from_numpy(np.array(array)) if array.dtype != np.float64 else torch.from_numpy(array.astype(np.float32))
        self.root.register_buffer(buffer, tensor, persistent=False)
        self.values[name] = value = self.graph.get_attr(buffer)
        return value

    def constant(self, node: NodeProto, index: int) -> Constant:
        """Return input `index`, which must be a constant."""
        name = self.name(node, index)
        if name not in self.constants:
            raise ModelUnsupported(f"{describe(node)}: input {name!r} must be a constant")
        return self.constants[name]

    def has(self, node: NodeProto, index: int) -> bool:
        """Return whether the optional input `index` is given."""
        return index < len(node.input) and node.input[index] != ""

    def name(self, node: NodeProto, index: int) -> str:
        """Return the name of input `index`, which must be given."""
        if not self.has(node, index):
            raise ModelUnsupported(f"{describe(node)}: input {index} is missing")
        return str(node.input[index])

    def rank(self, node: NodeProto, index: int) -> int:
        """Return the number of dimensions of input `index`, batch included."""
        name = self.name(node, index)
        if name in self.constants:
            return self.constants[name].ndim
        if name not in self.ranks:
            raise ModelUnsupported(f"{describe(node)}: the shape of {name!r} is not known")
        return self.ranks[name]

    def path(self, kind: str) -> str:
        """Return a name for a new part of the module."""
        return f"{kind}_{sum(1 for _ in self.root.children()) + sum(1 for _ in self.root.buffers(recurse=False))}"

    def module(self, kind: str, module: nn.Module, *arguments: fx.Node) -> fx.Node:
        """Add `module` and a call of it."""
        path = self.path(kind)
        self.root.add_module(path, module)
        return self.graph.call_module(path, arguments)

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """Add a call of `function`."""
        return self.graph.call_function(function, arguments, keywords)

    def load(self, call: fx.Node, parameter: str, name: str, *, transposed: bool = False) -> None:
        """Fill a parameter or buffer of the module that `call` calls, and tie it to its initializer.

        An initializer with several uses keeps its value and is not trained: exporters merge equal constants, so that training one
        use would silently change the others.
        """
        module = self.root.get_submodule(str(call.target))
        array = self.constants[name].astype(np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(array.T if transposed else array))
        target = getattr(module, parameter)
        with torch.no_grad():
            target.copy_(tensor)
        if name in self.shared:
            target.requires_grad = False
            return
        self.links.append(WeightLink(f"{call.target}.{parameter}", name, transposed))


Operator = Callable[[Builder, NodeProto], fx.Node]


def import_onnx(data: bytes) -> ImportedModel:
    """Return the model in `data` as trainable torch modules.

    Raises ArtifactInvalid as load_onnx does, and ModelUnsupported naming the node for an operator, attribute or shape that is not
    handled.
    """
    return import_model(load_onnx(data))


def import_model(model: ModelProto) -> ImportedModel:
    """Return a model that load_onnx gave as trainable torch modules; raises ModelUnsupported."""
    from .layers import LAYERS
    from .operators import OPERATORS

    graph = graph_signature(model)
    model = lift_constants(model)
    builder = _builder(model)
    builder.values[graph.input_name] = builder.graph.placeholder("features")
    table: dict[str, Operator] = {**OPERATORS, **LAYERS}
    for node in model.graph.node:
        if node.op_type not in table:
            raise ModelUnsupported(f"{describe(node)}: operator {node.op_type} cannot be trained")
        if len([name for name in node.output if name]) != 1:
            raise ModelUnsupported(f"{describe(node)} must have one output, got {len(node.output)}")
        builder.values[node.output[0]] = table[node.op_type](builder, node)
        builder.made_by[node.output[0]] = node.op_type
    return _finish(builder, model, graph.input_shape)


def _builder(model: ModelProto) -> Builder:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=False)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values if value.type.tensor_type.HasField("shape")}
    uses = [name for node in model.graph.node for name in node.input]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return Builder(
        graph=fx.Graph(),
        root=nn.Module(),
        constants=constants,
        ranks=ranks,
        opset=model.opset_import[0].version,
        shared={name for name in constants if uses.count(name) > 1},
    )


def _finish(builder: Builder, model: ModelProto, input_shape: tuple[int, ...]) -> ImportedModel:
    last = model.graph.node[-1]
    outputs = [value.name for value in model.graph.output]
    missing = [name for name in outputs if name not in builder.values]
    if missing:
        raise ModelUnsupported(f"model output {missing[0]!r} is not computed by any node")
    made_by = {name: node for node in model.graph.node for name in node.output}
    producer = made_by.get(outputs[0], last)
    while producer.op_type == "Identity" and producer.input[0] in made_by:
        producer = made_by[producer.input[0]]
    squash = producer.op_type if producer.op_type in ("Softmax", "Sigmoid") else ""
    ends = (builder.values[outputs[0]], builder.values[producer.input[0] if squash else outputs[0]])
    module, trunk = (_ending_at(builder, end) for end in ends)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelUnsupported("model must have weights that can be trained, got none")
    return ImportedModel(module, trunk, tuple(_live(module, builder.links)), input_shape, squash)


def _ending_at(builder: Builder, end: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(builder.graph, values)
    graph.output(values[end])
    module = fx.GraphModule(builder.root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


def _live(module: fx.GraphModule, links: list[WeightLink]) -> Iterator[WeightLink]:
    held = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    return (link for link in links if link.path in held)


def _attribute_value(node: NodeProto, attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) or hasattr(value, "__iter__"):
        return list(value)
    raise ModelUnsupported(f"{describe(node)}: attribute {attribute.name!r} must be a number, text or numbers")
