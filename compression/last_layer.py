"""The last layer of a regression: where the unit of the labels can be folded into its weights, so that training works in one near 1."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .layers import Bias
from .operators import reshape, to_float

_SHAPES: tuple[Callable[..., Any], ...] = (torch.flatten, torch.squeeze, torch.unsqueeze, reshape, to_float)
"""What changes the shape of a single number a row, never its value."""


@dataclass(frozen=True, slots=True)
class LastLayer:
    """Weight and bias of the layer that a regression's number comes from, and what the graph does to it: `slope` * z + `offset`."""

    weight: nn.Parameter
    bias: nn.Parameter
    slope: float
    offset: float

    def rescale(self, factor: float, shift: float) -> None:
        """Make the model give `factor` * y + `shift` where it gave y."""
        with torch.no_grad():
            self.weight.mul_(factor)
            self.bias.mul_(factor).add_((factor * self.offset + shift - self.offset) / self.slope)

    def in_unit(self, mean: float, spread: float) -> tuple[float, float]:
        """Return factor and shift to where labels of this mean and spread are 0 and 1 at the layer itself."""
        return self.slope / spread, self.offset - self.slope * mean / spread


def last_layer(trunk: nn.Module) -> LastLayer | None:
    """Return the last layer of an imported model with one output, None where something else than a line lies behind it."""
    if not isinstance(trunk, fx.GraphModule):
        return None
    node = next(node for node in trunk.graph.nodes if node.op == "output").args[0]
    slope, offset = 1.0, 0.0
    while isinstance(node, fx.Node):
        if node.op == "call_module":
            return _layer(trunk, node, slope, offset)
        if node.op != "call_function":
            return None
        if node.target in _SHAPES:
            node = node.args[0]
            continue
        found = _line(trunk, node)
        if found is None:
            return None
        node, factor, shift = found
        # The line further out takes what this one gives.
        slope, offset = slope * factor, slope * shift + offset
    return None


def _layer(trunk: fx.GraphModule, node: fx.Node, slope: float, offset: float) -> LastLayer | None:
    layer: nn.Module = trunk.get_submodule(str(node.target))
    bias: Any = getattr(layer, "bias", None)
    if isinstance(layer, Bias) and isinstance(node.args[0], fx.Node) and node.args[0].op == "call_module":
        layer = trunk.get_submodule(str(node.args[0].target))
        if getattr(layer, "bias", None) is not None:
            return None
    if not isinstance(layer, nn.Linear) or layer.out_features != 1 or not isinstance(bias, nn.Parameter):
        return None
    weight = next(layer.parameters())
    if bias.numel() != 1 or not (bias.requires_grad and weight.requires_grad) or slope == 0.0:
        return None
    return LastLayer(weight, bias, slope, offset)


def _line(trunk: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, float, float] | None:
    """Return the input of a node of arithmetic with one constant, and the factor and shift that it is."""
    if len(node.args) != 2:
        return None
    numbers = [_constant(trunk, argument) for argument in node.args]
    if (numbers[0] is None) == (numbers[1] is None):
        return None
    first = numbers[0] is not None
    number = numbers[0] if numbers[0] is not None else numbers[1]
    value = node.args[1 if first else 0]
    if number is None or not isinstance(value, fx.Node):
        return None
    if node.target is operator.add:
        return value, 1.0, number
    if node.target is operator.mul:
        return value, number, 0.0
    if node.target is operator.sub:
        return (value, -1.0, number) if first else (value, 1.0, -number)
    if node.target is operator.truediv and not first and number:
        return value, 1 / number, 0.0
    return None


def _constant(trunk: fx.GraphModule, value: Any) -> float | None:
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    held = getattr(trunk, str(value.target), None)
    return float(held.item()) if isinstance(held, torch.Tensor) and held.numel() == 1 else None
