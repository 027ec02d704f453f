"""The operators of the importer that hold no weights: arithmetic, activations, shapes, reductions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from onnx import NodeProto, TensorProto
from torch import fx, nn
from torch.nn import functional

from ..schemas.errors import ModelUnsupported
from .graph_builder import Builder, Operator
from .onnx_checks import describe


def _unary(function: Callable[..., Any]) -> Operator:
    def build(builder: Builder, node: NodeProto) -> fx.Node:
        builder.attributes(node)
        return builder.call(function, builder.argument(node, 0))

    return build


def _binary(function: Callable[..., Any]) -> Operator:
    def build(builder: Builder, node: NodeProto) -> fx.Node:
        builder.attributes(node)
        return builder.call(function, builder.argument(node, 0), builder.argument(node, 1))

    return build


def _leaky_relu(builder: Builder, node: NodeProto) -> fx.Node:
    alpha = builder.attributes(node, alpha=0.01)["alpha"]
    return builder.call(functional.leaky_relu, builder.argument(node, 0), negative_slope=alpha)


def _elu(builder: Builder, node: NodeProto) -> fx.Node:
    return builder.call(functional.elu, builder.argument(node, 0), alpha=builder.attributes(node, alpha=1.0)["alpha"])


def _selu(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)
    return builder.call(selu, builder.argument(node, 0), found["alpha"], found["gamma"])


def _hard_sigmoid(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, alpha=0.2, beta=0.5)
    return builder.call(hard_sigmoid, builder.argument(node, 0), found["alpha"], found["beta"])


def _gelu(builder: Builder, node: NodeProto) -> fx.Node:
    return builder.call(
        functional.gelu, builder.argument(node, 0), approximate=builder.attributes(node, approximate="none")["approximate"]
    )


def _softmax(builder: Builder, node: NodeProto) -> fx.Node:
    return builder.call(torch.softmax, builder.argument(node, 0), dim=builder.attributes(node, axis=-1)["axis"])


def _log_softmax(builder: Builder, node: NodeProto) -> fx.Node:
    return builder.call(torch.log_softmax, builder.argument(node, 0), dim=builder.attributes(node, axis=-1)["axis"])


def _clip(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    bounds = [builder.constant(node, index) if builder.has(node, index) else None for index in (1, 2)]
    if any(bound is not None and bound.size != 1 for bound in bounds):
        raise ModelUnsupported(f"{describe(node)}: a bound must be one number")
    low, high = (None if bound is None else float(bound.item()) for bound in bounds)
    if low is None and high is None:
        return builder.argument(node, 0)
    return builder.call(torch.clamp, builder.argument(node, 0), min=low, max=high)


def _where(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    return builder.call(torch.where, *(builder.argument(node, index) for index in range(3)))


def _cast(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, to=0, saturate=1, round_mode="up")
    if found["to"] != TensorProto.FLOAT:
        raise ModelUnsupported(f"{describe(node)}: a cast must be to float32, got ONNX type {found['to']}")
    return builder.call(to_float, builder.argument(node, 0))


def _identity(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    return builder.argument(node, 0)


def _dropout(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node, seed=0)
    if builder.has(node, 2) and bool(builder.constant(node, 2)):
        raise ModelUnsupported(f"{describe(node)}: training_mode must be false")
    share = float(builder.constant(node, 1)) if builder.has(node, 1) else 0.5
    return builder.module("dropout", nn.Dropout(share), builder.argument(node, 0))


def _flatten(builder: Builder, node: NodeProto) -> fx.Node:
    axis = builder.attributes(node, axis=1)["axis"]
    if axis == 1:
        return builder.call(torch.flatten, builder.argument(node, 0), 1)
    raise ModelUnsupported(f"{describe(node)}: axis must be 1, got {axis}")


def _reshape(builder: Builder, node: NodeProto) -> fx.Node:
    allow_zero = builder.attributes(node, allowzero=0)["allowzero"]
    shape = [int(size) for size in builder.constant(node, 1)]
    if allow_zero and 0 in shape:
        raise ModelUnsupported(f"{describe(node)}: allowzero must be 0 where the shape has a 0, got {shape}")
    if not shape or shape[0] > 0:
        raise ModelUnsupported(f"{describe(node)}: the shape must leave the batch open, got {shape}")
    return builder.call(reshape, builder.argument(node, 0), shape)


def _transpose(builder: Builder, node: NodeProto) -> fx.Node:
    order = builder.attributes(node, perm=None)["perm"]
    if order is None:
        order = list(range(builder.rank(node, 0)))[::-1]
    return builder.call(torch.permute, builder.argument(node, 0), order)


def _concat(builder: Builder, node: NodeProto) -> fx.Node:
    axis = builder.attributes(node, axis=None)["axis"]
    if axis is None:
        raise ModelUnsupported(f"{describe(node)}: axis is missing")
    return builder.call(torch.cat, [builder.argument(node, index) for index in range(len(node.input))], dim=axis)


def _axes(builder: Builder, node: NodeProto) -> list[int]:
    return [int(axis) for axis in builder.constant(node, 1).reshape(-1)]


def _squeeze(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    return builder.call(torch.squeeze, builder.argument(node, 0), dim=tuple(_axes(builder, node)))


def _unsqueeze(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    axes = _axes(builder, node)
    rank = builder.rank(node, 0) + len(axes)
    value = builder.argument(node, 0)
    for axis in sorted(axis % rank for axis in axes):
        value = builder.call(torch.unsqueeze, value, axis)
    return value


def _reduction(function: Callable[..., Any]) -> Operator:
    def build(builder: Builder, node: NodeProto) -> fx.Node:
        found = builder.attributes(node, axes=None, keepdims=1, noop_with_empty_axes=0)
        axes = found["axes"]
        if axes is None and builder.has(node, 1):
            axes = _axes(builder, node)
        if not axes:
            raise ModelUnsupported(f"{describe(node)}: axes are missing")
        return builder.call(function, builder.argument(node, 0), dim=tuple(axes), keepdim=bool(found["keepdims"]))

    return build


def selu(value: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Return ONNX Selu."""
    return gamma * functional.elu(value, alpha)


def hard_sigmoid(value: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return ONNX HardSigmoid."""
    return torch.clamp(alpha * value + beta, 0, 1)


def to_float(value: torch.Tensor) -> torch.Tensor:
    """Return the value as float32."""
    return value.to(torch.float32)


def reshape(value: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Return ONNX Reshape with a constant shape: 0 copies the size of the input, -1 is inferred."""
    sizes = [value.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    if shape[0] == 0 and -1 in shape[1:]:
        # -1 beside a dynamic batch: torch.export wants the row size spelt out.
        known = math.prod(size for size in sizes[1:] if size != -1)
        sizes[sizes.index(-1)] = math.prod(value.shape[1:]) // known
    return value.reshape(sizes)


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(operator.add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _binary(operator.truediv),
    "Dropout": _dropout,
    "Elu": _elu,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": _flatten,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _identity,
    "IsNaN": _unary(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Log": _unary(torch.log),
    "LogSoftmax": _log_softmax,
    "Mul": _binary(operator.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Selu": _selu,
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": _softmax,
    "Softplus": _unary(functional.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(operator.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
