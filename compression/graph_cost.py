"""What a graph costs to run: shapes at two fixed batches, from which growth, products and rows of the outputs follow unrun."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import ModelProto, NodeProto

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line, shown
from .graph_signature import BATCHES
from .onnx_checks import FileLimits, describe
from .operator_sets import DOMAINS, SIZED
from .untold_shapes import Shape, add_untold

Shapes = Mapping[str, Shape]
_RECURRENT = ("LSTM", "GRU", "RNN")
_ROUNDS = 32  # a pipeline has a step or two whose shape onnx does not follow, each behind others that it does


def shapes_at(model: ModelProto, rows: int) -> Shapes:
    """Return the shape of every value for a batch of `rows`, sizes that do not follow as None; raises ArtifactInvalid."""
    held = {tensor.name for tensor in model.graph.initializer}
    fixed = ModelProto()
    fixed.CopyFrom(model)
    # What the file says of shapes further on is its word alone.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        if value.name not in held:
            value.type.tensor_type.shape.dim[0].dim_value = rows
    for _ in range(_ROUNDS):
        found = _inferred(fixed, rows)
        if not add_untold(fixed, found):
            break
    return found


def _inferred(model: ModelProto, rows: int) -> Shapes:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=False)
    except Exception as problem:  # onnx raises what its parts raise, some of it straight from C++
        raise ArtifactInvalid(f"model must have consistent shapes for a batch of {rows} rows: {one_line(problem)}") from problem
    found: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    return found


def check_cost(model: ModelProto, limits: FileLimits) -> Shapes:
    """Return the shapes at a batch of BATCHES[0]; raises where values are too large, outgrow the rows, or take too many products."""
    small, large = (shapes_at(model, rows) for rows in BATCHES)
    products = 0
    for node in model.graph.node:
        for name in node.output:
            counts = [_elements(shapes.get(name)) for shapes in (small, large)]
            if len(small.get(name, ())) > limits.rank:
                raise ArtifactInvalid(f"value {shown(name)} must have at most {limits.rank} dimensions, got {len(small[name])}")
            # What does not grow with the rows is there once, and a session that folds constants holds it several times.
            is_fixed = counts[0] == counts[1]
            size = counts[1] if is_fixed else counts[1] // BATCHES[1]
            if size > limits.value_elements:
                what = "numbers" if is_fixed else "numbers a row"
                raise ArtifactInvalid(f"value {shown(name)} must have at most {limits.value_elements} {what}, got {size}")
            if counts[1] * BATCHES[0] > counts[0] * BATCHES[1] and counts[0]:
                raise ModelUnsupported(
                    f"value {shown(name)} must grow no faster than the rows, got {counts} numbers for {BATCHES} rows"
                )
        products += _products(node, small)
        if products > limits.products * BATCHES[0]:
            raise ModelUnsupported(f"model must take at most {limits.products} products a row, got more at {describe(node)}")
    return small


def check_sizes(model: ModelProto) -> None:
    """Raise where the size of a value follows from the numbers in a row, and not from how many there are alone."""
    held = {tensor.name for tensor in model.graph.initializer}
    valued = {value.name for value in model.graph.input} - held
    for node in model.graph.node:
        for place in SIZED.get(node.op_type, ()) if node.domain in DOMAINS else ():
            if place < len(node.input) and node.input[place] in valued:
                raise ModelUnsupported(
                    f"{describe(node)}: the size must not follow from the numbers in a row, as {shown(node.input[place])} does"
                )
        if valued & set(node.input) and node.op_type not in ("Shape", "Size"):
            valued |= set(node.output)


def _elements(shape: Shape | None) -> int:
    return math.prod(size for size in shape if size is not None) if shape else 0


def _products(node: NodeProto, shapes: Shapes) -> int:
    """Return roughly how many products and sums a node takes, 0 where shapes are not known."""
    made = sum(_elements(shapes.get(name)) for name in node.output)
    if node.op_type in ("MatMul", "Gemm"):
        return made * max(_inner(shapes.get(node.input[0])), 1)
    if node.op_type == "Conv" and len(node.input) > 1:
        return made * max(_elements((shapes.get(node.input[1]) or ())[1:]), 1)
    if node.op_type in _RECURRENT and len(node.input) > 2:
        weights = sum(_elements(shapes.get(name)) for name in node.input[1:3])
        return weights * max(_elements((shapes.get(node.input[0]) or ())[:2]), 1)
    if node.op_type == "ConvTranspose" and len(node.input) > 1:
        return _elements(shapes.get(node.input[0])) * max(_elements((shapes.get(node.input[1]) or ())[1:]), 1)
    if node.op_type == "Einsum":
        return math.prod(max(_elements(shapes.get(name)), 1) for name in node.input)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        kernel: list[int] = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape"), [])
        return made * max(math.prod(kernel), 1)
    return made + sum(_elements(shapes.get(name)) for name in node.input)


def _inner(shape: Shape | None) -> int:
    # With transA the inner size of a Gemm is the other one: the larger is a bound.
    return max((size for size in (shape or ())[-2:] if size is not None), default=1)
