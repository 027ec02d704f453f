"""The tree ensemble of a model: its node read into arrays, rows walked down to their leaves, new leaf values written back.

ONNX's TreeEnsembleClassifier and TreeEnsembleRegressor (ai.onnx.ml, operator sets 1 to 3), as LightGBM, XGBoost, CatBoost and
scikit-learn are exported. The node is one of a model that load_onnx took: `tree_checks.py` found each node reached once, from its root.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line, shown
from .ml_attributes import Attributes, Numbers
from .onnx_checks import describe
from .tree_checks import AGGREGATES, POST_TRANSFORMS, Places, label_count

Ints = NDArray[np.int64]
# Places in this list are what `mode` holds; a comparison with NaN is false, but for NEQ.
MODES = ("LEAF", "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MAX_VALUES = 50_000_000  # leaves times columns held at once: 400 MB
_WALKED = 1_000_000  # rows times trees on their way at once: 30 MB
LABELS = ("classlabels_int64s", "classlabels_strings")
_CURE = "use another step, such as correct or affine, which need the model's scores alone"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How an operator says the weights of its leaves, and how many columns it gives."""

    prefix: str
    ids: str


_KINDS = {"TreeEnsembleClassifier": _Kind("class", "class_ids"), "TreeEnsembleRegressor": _Kind("target", "target_ids")}


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """The trees of one node: m nodes of t trees, one after the other as the file has them, l leaves, k columns.

    `left` is where a true comparison leads, `parent` is -1 at the t `roots`. `leaf` is a node's number among the leaves, -1 elsewhere.
    `values` (l, k) are what leaves add to the columns, 0 where the file has no weight for one (`entries` has them, in its order, as
    places in the flat `values`). `mean`: the columns are the mean over the trees, not their sum. `one_score`: the one column is that of
    the second of two classes.
    """

    node: NodeProto
    tree: Ints
    mode: Ints
    feature: Ints
    threshold: Numbers
    nan_is_true: NDArray[np.bool_]
    left: Ints
    right: Ints
    parent: Ints
    roots: Ints
    leaf: Ints
    entries: Ints
    values: Numbers
    base: Numbers
    post_transform: str
    mean: bool
    one_score: bool

    @property
    def columns(self) -> int:
        """Return k, the number of columns that the leaves add to."""
        return int(self.values.shape[1])

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """Return (l, k): for which columns the file holds a weight."""
        held = np.zeros(self.values.shape, np.bool_)
        held.ravel()[self.entries] = True
        return held

    def leaves(self, matrix: NDArray[Any]) -> Ints:
        """Return the leaf (n, t) that each row (n, features) of what the node is given reaches in each tree; raises ArtifactInvalid."""
        widest = int(self.feature.max(initial=0))
        if matrix.ndim != 2 or matrix.shape[1] <= widest:
            raise ArtifactInvalid(f"{describe(self.node)}: features must be at least {widest + 1}, got shape {list(matrix.shape)}")
        # onnxruntime compares what is no double in float32.
        rows = matrix if matrix.dtype == np.float64 else matrix.astype(np.float32)
        step = max(1, _WALKED // len(self.roots))
        parts = [self._walk(rows[start : start + step]) for start in range(0, len(rows), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.roots)), np.int64)

    def sums(self, leaves: Ints) -> Numbers:
        """Return the columns (n, k) before the node's own transformation, for leaves (n, t)."""
        total = np.zeros((len(leaves), self.columns))
        for column in leaves.T:
            total += self.values[column]
        return (total / len(self.roots) if self.mean else total) + self.base

    def scores(self, sums: Numbers) -> Numbers:
        """Return what the node gives for columns (n, k), as onnxruntime does; raises ModelUnsupported."""
        kind = self.post_transform
        if self.one_score:
            if kind not in ("NONE", "LOGISTIC"):
                raise self._no(f"post_transform of one column must be NONE or LOGISTIC, got {shown(kind)}")
            if (self.values >= 0).all():  # onnxruntime takes such weights for a chance, whatever the transform
                return np.hstack([1 - sums, sums])
            both = np.hstack([-sums, sums])
            return logistic(both) if kind == "LOGISTIC" else both
        if kind == "NONE":
            return sums
        if kind == "LOGISTIC":
            return logistic(sums)
        if kind == "SOFTMAX":
            return softmax(sums)
        raise self._no(f"post_transform must be NONE, LOGISTIC or SOFTMAX, got {shown(kind)}")

    def with_values(self, values: Numbers) -> TreeEnsemble:
        """Return the ensemble with new leaf values (l, k), as float32 holds them; its node has as many weights as before.

        Raises ArtifactInvalid where they are not finite.
        """
        with np.errstate(over="ignore"):
            kept = np.where(self.held, values, 0.0).astype(np.float32).astype(np.float64)
        if not np.isfinite(kept).all():
            raise ArtifactInvalid(f"{describe(self.node)}: new leaf values must be finite")
        if self.one_score and (self.values < 0).any() and (kept >= 0).all():
            # One weight below 0, however small, keeps onnxruntime from taking the sum for a chance: the smallest.
            kept.ravel()[self.entries[kept.ravel()[self.entries].argmin()]] = np.float32(-1e-30)
        node = NodeProto()
        node.CopyFrom(self.node)
        _write_weights(node, kept.ravel()[self.entries])
        return replace(self, node=node, values=kept)

    def _walk(self, rows: NDArray[Any]) -> Ints:
        at = np.tile(self.roots, len(rows))
        row = np.repeat(np.arange(len(rows)), len(self.roots))
        # No node that a root leads to has two parents, so every way ends.
        moving = np.flatnonzero(self.mode[at])
        while len(moving):
            here = at[moving]
            at[moving] = np.where(self._is_true(here, rows[row[moving], self.feature[here]]), self.left[here], self.right[here])
            moving = moving[self.mode[at[moving]] > 0]
        return self.leaf[at].reshape(len(rows), -1)

    def _is_true(self, here: Ints, value: NDArray[Any]) -> NDArray[np.bool_]:
        mode, bound = self.mode[here], self.threshold[here].astype(value.dtype)
        below, same = value < bound, value == bound
        # As MODES has them; a leaf is nowhere to go from.
        answers = [below, below | same, below, ~below & (value >= bound), value > bound, same, ~same]
        return np.asarray(np.choose(mode, answers) | (self.nan_is_true[here] & np.isnan(value)))

    def _no(self, rule: str) -> ModelUnsupported:
        return ModelUnsupported(f"{describe(self.node)}: {rule} ({_CURE})")


def logistic(numbers: Numbers) -> Numbers:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * numbers)))


def softmax(numbers: Numbers) -> Numbers:
    """Return the softmax of each row."""
    powers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def ensemble_place(model: ModelProto) -> int:
    """Return the place of the one tree ensemble among the model's nodes; raises ModelUnsupported where there is none or more."""
    found = [place for place, node in enumerate(model.graph.node) if node.op_type.startswith("TreeEnsemble")]
    if len(found) != 1:
        ops = sorted({node.op_type for node in model.graph.node})
        raise ModelUnsupported(f"model must have one tree ensemble, got {len(found)} among {one_line(', '.join(ops))} ({_CURE})")
    return found[0]


def read_ensemble(node: NodeProto) -> TreeEnsemble:
    """Return the trees of a node of a model that load_onnx took; raises ModelUnsupported for what is not handled."""
    kind = _KINDS.get(node.op_type)
    if kind is None:
        raise ModelUnsupported(f"{describe(node)} must be {' or '.join(_KINDS)} ({_CURE})")
    found = Attributes(node)
    aggregate = found.text("aggregate_function", AGGREGATES)
    if aggregate not in ("SUM", "AVERAGE"):
        raise ModelUnsupported(f"{describe(node)}: aggregate_function must be SUM or AVERAGE, got {shown(aggregate)} ({_CURE})")
    is_classifier = kind.prefix == "class"
    outputs = label_count(found, *LABELS) if is_classifier else found.whole("n_targets", 1)
    ids = found.wholes(kind.ids)
    one_score = is_classifier and outputs == 2 and bool((ids == ids[0]).all())
    columns = 1 if one_score else outputs
    trees = found.wholes("nodes_treeids")
    places = Places(found, trees, found.wholes("nodes_nodeids", len(trees)))
    nodes = _nodes(found, trees, places)
    leaf_count = int((nodes["mode"] == 0).sum())
    if columns * leaf_count > MAX_VALUES:
        raise ModelUnsupported(f"{describe(node)}: leaves times columns must be at most {MAX_VALUES} ({_CURE})")
    at = places.of(f"{kind.prefix}_nodeids", *(found.wholes(f"{kind.prefix}_{part}", len(ids)) for part in ("treeids", "nodeids")))
    entries = nodes["leaf"][at] * columns + (0 if one_score else ids)
    if len(np.unique(entries)) != len(entries):
        raise ModelUnsupported(f"{describe(node)}: a leaf must have one weight for each of {kind.ids}, got two ({_CURE})")
    values = np.zeros(leaf_count * columns)
    values[entries] = found.numbers(f"{kind.prefix}_weights", len(ids))
    return TreeEnsemble(
        node=node,
        entries=entries,
        values=values.reshape(leaf_count, columns),
        base=_base(found, columns),
        post_transform=found.text("post_transform", POST_TRANSFORMS),
        mean=aggregate == "AVERAGE",
        one_score=one_score,
        **nodes,
    )


def _nodes(found: Attributes, trees: Ints, places: Places) -> dict[str, Any]:
    """Return the fields of a TreeEnsemble that are one number a node, and the roots."""
    count = len(trees)
    mode = np.array([MODES.index(one) for one in found.texts("nodes_modes", count)], np.int64)
    branch = np.flatnonzero(mode)
    left, right, parent, leaf = (np.full(count, -1) for _ in range(4))
    for side, name in ((left, "nodes_truenodeids"), (right, "nodes_falsenodeids")):
        side[branch] = places.of(name, trees[branch], found.wholes(name, count)[branch])
        parent[side[branch]] = branch
    leaf[mode == 0] = np.arange(count - len(branch))
    gaps = found.wholes("nodes_missing_value_tracks_true")
    roots = np.flatnonzero(parent < 0)
    return {
        "tree": trees,
        "mode": mode,
        "feature": np.where(mode > 0, found.wholes("nodes_featureids", count), 0),
        "threshold": found.numbers("nodes_values", count),
        "nan_is_true": gaps != 0 if len(gaps) else np.zeros(count, np.bool_),
        "left": left,
        "right": right,
        "parent": parent,
        "roots": roots[np.argsort(trees[roots], kind="stable")],
        "leaf": leaf,
    }


def _base(found: Attributes, columns: int) -> Numbers:
    """Return what is added to the columns; of two numbers for one column the second is that of the second class."""
    base = found.numbers("base_values")
    if not len(base):
        return np.zeros(columns)
    if len(base) < columns:
        raise ModelUnsupported(f"{describe(found.node)}: base_values must be {columns}, got {len(base)} ({_CURE})")
    return base[-columns:]


def _write_weights(node: NodeProto, weights: Numbers) -> None:
    prefix = _KINDS[node.op_type].prefix
    for attribute in node.attribute:
        if attribute.name == f"{prefix}_weights" and attribute.floats:
            del attribute.floats[:]
            attribute.floats.extend(weights.astype(np.float32).tolist())
        elif attribute.name == f"{prefix}_weights_as_tensor" and attribute.t.dims:
            dtype = numpy_helper.to_array(attribute.t).dtype
            attribute.t.CopyFrom(numpy_helper.from_array(weights.astype(dtype), attribute.t.name))
