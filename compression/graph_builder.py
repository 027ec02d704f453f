"""The graph of a model while it is imported: what its operators read inputs from and add nodes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, helper
from torch import fx, nn

from ..schemas.errors import ModelUnsupported
from .onnx_checks import describe

Constant = NDArray[Any]


@dataclass(frozen=True, slots=True)
class WeightLink:
    """The tie of a parameter or buffer of the module to the initializer it came from; `transposed` as MatMul stores its weight."""

    path: str
    initializer: str
    transposed: bool = False


@dataclass(slots=True)
class Builder:
    """What import knows so far; operators read inputs from it and add nodes to it."""

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


def _attribute_value(node: NodeProto, attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) or hasattr(value, "__iter__"):
        return list(value)
    raise ModelUnsupported(f"{describe(node)}: attribute {attribute.name!r} must be a number, text or numbers")
