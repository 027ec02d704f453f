"""The operators of the importer that hold weights, and pooling: Gemm, MatMul, Conv, BatchNormalization, LayerNormalization, bias Add."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import NodeProto
from torch import fx, nn
from torch.nn import functional

from ..schemas.errors import ModelUnsupported
from .graph_builder import Builder, Operator
from .onnx_checks import describe
from .operators import OPERATORS

_CONVS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_MAX_POOLS = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
_AVERAGE_POOLS = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
_WEIGHTED = ("Gemm", "MatMul", "Conv")


class Bias(nn.Module):
    """A trainable constant that is added, in the shape the graph stores it in."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return value + bias."""
        return value + self.bias

    def reset_parameters(self) -> None:
        """Start over from zero."""
        nn.init.zeros_(self.bias)


def _weight(builder: Builder, node: NodeProto, index: int) -> np.ndarray[Any, Any]:
    weight = builder.constant(node, index)
    if weight.dtype != np.float32:
        raise ModelUnsupported(f"{describe(node)}: weight {node.input[index]!r} must be float32, got {weight.dtype}")
    return weight


def _gemm(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)
    for name, value in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        if found[name] != value:
            raise ModelUnsupported(f"{describe(node)}: {name} must be {value}, got {found[name]}")
    weight = _weight(builder, node, 1)
    out_size, in_size = weight.shape if found["transB"] else weight.shape[::-1]
    bias = builder.has(node, 2)
    if bias and _weight(builder, node, 2).shape != (out_size,):
        raise ModelUnsupported(f"{describe(node)}: bias must have shape [{out_size}], got {list(builder.constant(node, 2).shape)}")
    call = builder.module("linear", nn.Linear(in_size, out_size, bias=bias), builder.argument(node, 0))
    builder.load(call, "weight", node.input[1], transposed=not found["transB"])
    if bias:
        builder.load(call, "bias", node.input[2])
    return call


def _matmul(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    if builder.name(node, 1) not in builder.constants or builder.name(node, 0) in builder.constants:
        return builder.call(torch.matmul, builder.argument(node, 0), builder.argument(node, 1))
    weight = _weight(builder, node, 1)
    if weight.ndim != 2:
        raise ModelUnsupported(f"{describe(node)}: weight must have two dimensions, got shape {list(weight.shape)}")
    call = builder.module("linear", nn.Linear(weight.shape[0], weight.shape[1], bias=False), builder.argument(node, 0))
    builder.load(call, "weight", node.input[1], transposed=True)
    return call


def _add(builder: Builder, node: NodeProto) -> fx.Node:
    """Add; a constant right behind a weighted layer is its bias and is trained."""
    names = [builder.name(node, 0), builder.name(node, 1)]
    for value, constant in (names, names[::-1]):
        behind = builder.made_by.get(value) in _WEIGHTED
        if behind and constant in builder.constants and builder.constants[constant].dtype == np.float32:
            builder.attributes(node)
            call = builder.module("bias", Bias(builder.constants[constant].shape), builder.values[value])
            builder.load(call, "bias", constant)
            return call
    return OPERATORS["Add"](builder, node)


def _pads(node: NodeProto, found: dict[str, Any], spatial: int) -> tuple[int, ...]:
    if found["auto_pad"] != "NOTSET":
        raise ModelUnsupported(f"{describe(node)}: auto_pad must be NOTSET, got {found['auto_pad']}")
    pads = [0] * (2 * spatial) if found["pads"] is None else found["pads"]
    if len(pads) != 2 * spatial or pads[:spatial] != pads[spatial:]:
        raise ModelUnsupported(f"{describe(node)}: pads must be equal on both sides, got {pads}")
    return tuple(pads[:spatial])


def _conv(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None)
    weight = _weight(builder, node, 1)
    if weight.ndim not in _CONVS:
        raise ModelUnsupported(f"{describe(node)}: weight must have 3 to 5 dimensions, got {weight.ndim}")
    spatial = weight.ndim - 2
    group = found["group"]
    if group < 1 or weight.shape[0] % group:
        raise ModelUnsupported(f"{describe(node)}: group must divide {weight.shape[0]} channels, got {group}")
    kernel = tuple(weight.shape[2:])
    if found["kernel_shape"] is not None and tuple(found["kernel_shape"]) != kernel:
        raise ModelUnsupported(f"{describe(node)}: kernel_shape must be {list(kernel)}, got {found['kernel_shape']}")
    module = _CONVS[weight.ndim](
        weight.shape[1] * group,
        weight.shape[0],
        kernel,  # type: ignore[arg-type]
        stride=_ones(found["strides"], spatial),  # type: ignore[arg-type]
        padding=_pads(node, found, spatial),  # type: ignore[arg-type]
        dilation=_ones(found["dilations"], spatial),  # type: ignore[arg-type]
        groups=group,
        bias=builder.has(node, 2),
    )
    call = builder.module("conv", module, builder.argument(node, 0))
    builder.load(call, "weight", node.input[1])
    if builder.has(node, 2):
        _weight(builder, node, 2)
        builder.load(call, "bias", node.input[2])
    return call


def _ones(values: list[int] | None, spatial: int) -> tuple[int, ...]:
    return (1,) * spatial if values is None else tuple(values)


def _batch_norm(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, epsilon=1e-5, momentum=0.9, training_mode=0)
    if found["training_mode"]:
        raise ModelUnsupported(f"{describe(node)}: training_mode must be 0")
    rank = builder.rank(node, 0)
    if rank not in _NORMS:
        raise ModelUnsupported(f"{describe(node)}: input must have 2 to 5 dimensions, got {rank}")
    channels = _weight(builder, node, 1).shape[0]
    module = _NORMS[rank](channels, eps=found["epsilon"], momentum=1 - found["momentum"])
    call = builder.module("norm", module, builder.argument(node, 0))
    for index, parameter in enumerate(("weight", "bias", "running_mean", "running_var"), 1):
        _weight(builder, node, index)
        builder.load(call, parameter, node.input[index])
    return call


def _layer_norm(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(node, axis=-1, epsilon=1e-5, stash_type=1)
    scale = _weight(builder, node, 1)
    if found["axis"] not in (-1, builder.rank(node, 0) - 1) or scale.ndim != 1:
        raise ModelUnsupported(f"{describe(node)}: axis must be the last, got {found['axis']}")
    bias = builder.has(node, 2)
    module = nn.LayerNorm(scale.shape[0], eps=found["epsilon"], bias=bias)
    call = builder.module("norm", module, builder.argument(node, 0))
    builder.load(call, "weight", node.input[1])
    if bias:
        _weight(builder, node, 2)
        builder.load(call, "bias", node.input[2])
    return call


def _max_pool(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(
        node, auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape=None, pads=None, storage_order=0, strides=None
    )
    rank, kernel, spatial = _pool_shape(builder, node, found)
    return builder.call(
        _MAX_POOLS[rank],
        builder.argument(node, 0),
        kernel,
        stride=_ones(found["strides"], spatial),
        padding=_pads(node, found, spatial),
        dilation=_ones(found["dilations"], spatial),
    )


def _average_pool(builder: Builder, node: NodeProto) -> fx.Node:
    found = builder.attributes(
        node, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, kernel_shape=None, pads=None, strides=None
    )
    rank, kernel, spatial = _pool_shape(builder, node, found)
    if set(_ones(found["dilations"], spatial)) != {1}:
        raise ModelUnsupported(f"{describe(node)}: dilations must be 1, got {found['dilations']}")
    return builder.call(
        _AVERAGE_POOLS[rank],
        builder.argument(node, 0),
        kernel,
        stride=_ones(found["strides"], spatial),
        padding=_pads(node, found, spatial),
        count_include_pad=bool(found["count_include_pad"]),
    )


def _pool_shape(builder: Builder, node: NodeProto, found: dict[str, Any]) -> tuple[int, tuple[int, ...], int]:
    rank = builder.rank(node, 0)
    kernel = found["kernel_shape"]
    if rank not in _MAX_POOLS or kernel is None or len(kernel) != rank - 2:
        raise ModelUnsupported(f"{describe(node)}: kernel_shape must suit an input of 3 to 5 dimensions, got {kernel}")
    if found["ceil_mode"] or found.get("storage_order", 0):
        raise ModelUnsupported(f"{describe(node)}: ceil_mode and storage_order must be 0")
    return rank, tuple(kernel), rank - 2


def _global_pool(builder: Builder, node: NodeProto) -> fx.Node:
    builder.attributes(node)
    function = torch.mean if node.op_type == "GlobalAveragePool" else torch.amax
    return builder.call(function, builder.argument(node, 0), dim=tuple(range(2, builder.rank(node, 0))), keepdim=True)


LAYERS: dict[str, Operator] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
}
