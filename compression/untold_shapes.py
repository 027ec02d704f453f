"""Shapes of values that onnx does not follow (1.23.2): what most ai.onnx.ml operators make, and constants of another value's shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from .operator_sets import ML_DOMAIN

Shape = tuple[int | None, ...]
_AS_IT_CAME = ("Imputer", "Normalizer", "Scaler")
_BY_TARGET = {"LinearRegressor": "targets", "SVMRegressor": "", "TreeEnsembleRegressor": "n_targets"}


def add_untold(model: ModelProto, found: Mapping[str, Shape]) -> bool:
    """Say in `model` of which shape values are that `found` lacks, where their node is one of these; return whether any was."""
    known = dict(found)
    ends = {value.name: value for value in model.graph.output}
    made_by = {name: node for node in model.graph.node for name in node.output}
    added = False
    for node in model.graph.node:
        at = 1 if node.op_type == "TreeEnsembleClassifier" else 0
        if len(node.output) <= at or not node.input or None not in known.get(node.output[at], (None,)):
            continue
        name, shape = node.output[at], _shape(node, known, made_by)
        if shape is None or None in shape:
            continue
        known[name], added = shape, True
        told = helper.make_tensor_value_info(name, _kind(node), shape)
        if name in ends:
            ends[name].type.tensor_type.shape.CopyFrom(told.type.tensor_type.shape)
        else:
            model.graph.value_info.append(told)
    return added


def _shape(node: NodeProto, known: Mapping[str, Shape], made_by: Mapping[str, NodeProto]) -> Shape | None:
    if node.domain != ML_DOMAIN:
        source = made_by.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        whole = source is not None and source.op_type == "Shape" and not source.attribute and len(source.input) == 1
        return known.get(source.input[0]) if source is not None and whole else None
    shape = known.get(node.input[0])
    if not shape:
        return None
    if node.op_type in _AS_IT_CAME:
        return shape
    if node.op_type in _BY_TARGET:
        return shape[0], max(int(_attribute(node, _BY_TARGET[node.op_type], 1)), 0)
    if node.op_type == "TreeEnsembleClassifier":
        labels = sum(len(one.ints) + len(one.strings) for one in node.attribute if one.name.startswith("classlabels_"))
        return (shape[0], labels) if labels > 1 else None
    if node.op_type == "ArrayFeatureExtractor" and len(node.input) == 2 and len(shape) > 1:
        places = known.get(node.input[1], (None,))
        return None if None in places else (*shape[:-1], math.prod(size for size in places if size is not None))
    if node.op_type == "FeatureVectorizer":
        return shape[0], sum(max(size, 0) for size in _attribute(node, "inputdimensions", ()))
    return None


def _kind(node: NodeProto) -> int:
    """Return the ONNX type of what a node makes."""
    held = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Imputer" and "imputed_value_int64s" in held:
        return int(TensorProto.INT64)
    if node.op_type == "ConstantOfShape" and "value" in held:
        return int(held["value"].t.data_type)
    return int(TensorProto.FLOAT)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints) if isinstance(default, tuple) else attribute.i
    return default
