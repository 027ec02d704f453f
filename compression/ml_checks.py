"""The attributes of ai.onnx.ml operators, held against the rows that come in: lengths, ranges and places, one rule an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import shown
from .graph_cost import Shapes
from .ml_attributes import Attributes
from .onnx_checks import FileLimits, describe
from .operator_sets import ML_DOMAIN
from .tree_checks import POST_TRANSFORMS, check_classifier, check_ensemble, check_regressor, label_count

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")
_CATEGORIES = 100_000
Rule = Callable[[Attributes, int], int]
"""From the attributes and the numbers a row that come in to the steps a row takes; raises ArtifactInvalid."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What is known of the values in a graph: shapes, and the constants."""

    shapes: Shapes
    constants: dict[str, NDArray[Any]]


def check_ml(model: ModelProto, shapes: Shapes, limits: FileLimits) -> None:
    """Raise where an ai.onnx.ml node of `model` is not sound for rows of the `shapes`, or they take too many steps together."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    inside = Inside(shapes, {name: numpy_helper.to_array(tensor) for name, tensor in held.items() if len(tensor.dims) <= 2})
    steps = 0
    for node in model.graph.node:
        if node.domain != ML_DOMAIN:
            continue
        found = Attributes(node)
        if node.op_type == "ArrayFeatureExtractor":
            _check_extractor(found, inside)
        elif node.op_type in _ELEMENTWISE:
            _ELEMENTWISE[node.op_type](found)
        else:
            steps += _BY_ROW[node.op_type](found, _width(found, inside))
        if steps > limits.products:
            raise ModelUnsupported(f"model must take at most {limits.products} steps a row, got more at {describe(node)}")


def _width(found: Attributes, inside: Inside) -> int:
    node = found.node
    shape = inside.shapes.get(node.input[0]) if node.input else None
    if shape is None or len(shape) != 2 or shape[1] is None or shape[1] < 1:
        got = "unknown" if shape is None else list(shape)
        raise ModelUnsupported(f"{describe(node)}: input must be a matrix of known width, got shape {got}")
    return shape[1]


def _check_scaler(found: Attributes, width: int) -> int:
    for name in ("offset", "scale"):
        if len(found.numbers(name)) not in (1, width):
            raise found.invalid(name, f"have 1 or {width} entries", len(found.numbers(name)))
    return width


def _check_imputer(found: Attributes, width: int) -> int:
    filled = "imputed_value_int64s" if found.has("imputed_value_int64s") else "imputed_value_floats"
    count = len(found.wholes(filled) if filled.endswith("int64s") else found.numbers(filled))
    if count not in (1, width):
        raise found.invalid(filled, f"have 1 or {width} entries", count)
    return width


def _check_linear_classifier(found: Attributes, width: int) -> int:
    labels = label_count(found, "classlabels_ints", "classlabels_strings")
    found.text("post_transform", POST_TRANSFORMS)
    intercepts = len(found.numbers("intercepts"))
    if intercepts not in (0, 1, labels) or (intercepts == 1 and labels > 2):
        raise found.invalid("intercepts", f"have no or {labels} entries", intercepts)
    rows = intercepts if intercepts else labels
    found.numbers("coefficients", rows * width)
    return rows * width


def _check_linear_regressor(found: Attributes, width: int) -> int:
    targets = found.whole("targets", 1)
    found.text("post_transform", POST_TRANSFORMS)
    if not 1 <= targets <= _CATEGORIES:
        raise found.invalid("targets", f"be 1 to {_CATEGORIES}", targets)
    if len(found.numbers("intercepts")) not in (0, targets):
        raise found.invalid("intercepts", f"have no or {targets} entries", len(found.numbers("intercepts")))
    found.numbers("coefficients", targets * width)
    return targets * width


def _check_kernel(found: Attributes) -> None:
    found.text("kernel_type", KERNELS)
    found.text("post_transform", POST_TRANSFORMS)
    if len(found.numbers("kernel_params")) not in (0, 3):
        raise found.invalid("kernel_params", "have no or 3 entries", len(found.numbers("kernel_params")))


def _check_svm_classifier(found: Attributes, width: int) -> int:
    _check_kernel(found)
    labels = label_count(found, "classlabels_ints", "classlabels_strings")
    counts = found.wholes("vectors_per_class")
    if len(counts) and (len(counts) != labels or (counts < 0).any() or counts.sum() > _CATEGORIES):
        raise found.invalid(
            "vectors_per_class", f"have {labels} counts of vectors, at most {_CATEGORIES} together", list(counts[:8])
        )
    vectors = int(counts.sum())
    found.numbers("support_vectors", vectors * width)
    found.numbers("coefficients", vectors * (labels - 1) if vectors else labels * width)
    pairs = labels * (labels - 1) // 2
    if vectors and not pairs:
        raise found.invalid("vectors_per_class", "be of two classes or more", labels)
    for name in ("prob_a", "prob_b"):
        if found.has(name) and len(found.numbers(name)):
            found.numbers(name, pairs)
    rho = len(found.numbers("rho"))
    if rho not in ((pairs,) if vectors else (1, labels)):
        raise found.invalid("rho", f"have {pairs if vectors else 1} entries", rho)
    return max(vectors, labels) * width + vectors * labels


def _check_svm_regressor(found: Attributes, width: int) -> int:
    _check_kernel(found)
    vectors = found.whole("n_supports", 0)
    if not 0 <= vectors <= _CATEGORIES:
        raise found.invalid("n_supports", f"be 0 to {_CATEGORIES}", vectors)
    if found.whole("one_class", 0) not in (0, 1):
        raise found.invalid("one_class", "be 0 or 1", found.whole("one_class", 0))
    found.numbers("support_vectors", vectors * width)
    found.numbers("coefficients", vectors if vectors else width)
    found.numbers("rho", 1)
    return max(vectors, 1) * width


def _check_vectorizer(found: Attributes, width: int) -> int:
    sizes = found.wholes("inputdimensions", len(found.node.input))
    if (sizes < 1).any() or sizes.sum() > _CATEGORIES or sizes[0] != width:
        raise found.invalid("inputdimensions", f"begin with {width} and be 1 or more", list(sizes[:8]))
    return int(sizes.sum())


def _check_normalizer(found: Attributes) -> None:
    found.text("norm", ("MAX", "L1", "L2"))


def _check_binarizer(found: Attributes) -> None:
    found.number("threshold", 0.0)


def _check_one_hot(found: Attributes) -> None:
    if label_count(found, "cats_int64s", "cats_strings") > _CATEGORIES:
        raise found.invalid("cats_int64s", f"hold at most {_CATEGORIES} categories", "more")
    if found.whole("zeros", 1) not in (0, 1):
        raise found.invalid("zeros", "be 0 or 1", found.whole("zeros", 1))


def _check_label_encoder(found: Attributes) -> None:
    """Check that keys and values are of one length, each of one kind; NaN is a key and a value like others."""
    counts: dict[str, list[int]] = {"keys": [], "values": []}
    for part, lengths in counts.items():
        for name in (f"{part}_int64s", f"{part}_floats", f"{part}_strings", f"{part}_tensor"):
            if found.has(name):
                lengths.append(_length(found, name))
    if found.has("classes_strings") and not any(counts.values()):
        found.texts("classes_strings")
    elif len(counts["keys"]) != 1 or counts["keys"] != counts["values"] or counts["keys"][0] > 10 * _CATEGORIES:
        raise found.invalid("keys", "be one list, as long as that of the values", counts)


def _length(found: Attributes, name: str) -> int:
    if name.endswith("_tensor"):
        return int(found.tensor(name, "fiuOUS", gaps=True).size)
    if name.endswith("_strings"):
        return len(found.texts(name))
    return len(found.wholes(name)) if name.endswith("_int64s") else len(found.listed(name))


def _check_extractor(found: Attributes, inside: Inside) -> None:
    """Check places that are constant; the others are looked at by onnxruntime, row by row."""
    node = found.node
    if len(node.input) != 2:
        raise ArtifactInvalid(f"{describe(node)} must have two inputs, got {len(node.input)}")
    places = inside.constants.get(node.input[1])
    if places is None:
        return
    shape = inside.shapes.get(node.input[0])
    last = None if not shape else shape[-1]
    if last is None:
        raise ModelUnsupported(f"{describe(node)}: the width of {shown(node.input[0])} must be known")
    if places.dtype != np.int64 or not places.size or ((places < 0) | (places >= last)).any():
        raise ArtifactInvalid(f"{describe(node)}: places must be whole numbers from 0 to {last - 1}")


_BY_ROW: dict[str, Rule] = {
    "FeatureVectorizer": _check_vectorizer,
    "Imputer": _check_imputer,
    "LinearClassifier": _check_linear_classifier,
    "LinearRegressor": _check_linear_regressor,
    "SVMClassifier": _check_svm_classifier,
    "SVMRegressor": _check_svm_regressor,
    "Scaler": _check_scaler,
    "TreeEnsemble": check_ensemble,
    "TreeEnsembleClassifier": check_classifier,
    "TreeEnsembleRegressor": check_regressor,
}
_ELEMENTWISE: dict[str, Callable[[Attributes], None]] = {
    "Binarizer": _check_binarizer,
    "LabelEncoder": _check_label_encoder,
    "Normalizer": _check_normalizer,
    "OneHotEncoder": _check_one_hot,
}
