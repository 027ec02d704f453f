"""The tree ensemble of a model: its node read into arrays, rows walked down to their leaves, new leaf values written back.

ONNX's TreeEnsembleClassifier and TreeEnsembleRegressor (ai.onnx.ml, operator sets 1 to 3), as LightGBM, XGBoost, CatBoost and
scikit-learn are exported. What is read here may come from strangers: everything is checked before a row is walked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line, shown
from .onnx_checks import describe

Ints = NDArray[np.int64]
Numbers = NDArray[np.float64]
LEAF = "LEAF"
# Places in this list are what `mode` holds; a comparison with NaN is false, but for NEQ.
MODES = (LEAF, "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
MAX_VALUES = 50_000_000  # leaves times columns held at once: 400 MB
_WALKED = 1_000_000  # rows times trees on their way at once: 30 MB
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
    threshold: NDArray[Any]
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
        mode, bound = self.mode[here], self.threshold[here]
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
    """Return the trees of a node; raises ModelUnsupported for what is not handled, ArtifactInvalid for what is no forest of trees."""
    kind = _KINDS.get(node.op_type)
    if kind is None:
        raise ModelUnsupported(f"{describe(node)} must be {' or '.join(_KINDS)} ({_CURE})")
    held = {attribute.name: attribute for attribute in node.attribute}
    said = {name: _value(node, name, attribute) for name, attribute in held.items()}
    aggregate = str(said.get("aggregate_function", "SUM"))
    if aggregate not in ("SUM", "AVERAGE"):
        raise ModelUnsupported(f"{describe(node)}: aggregate_function must be SUM or AVERAGE, got {shown(aggregate)} ({_CURE})")
    nodes = _nodes(node, said)
    tree, parent = nodes["tree"], nodes["parent"]
    labels = max(len(said.get("classlabels_int64s", ())), len(said.get("classlabels_strings", ())))
    outputs = labels if kind.prefix == "class" else int(said.get("n_targets", 1))
    entries, columns = _entries(node, said, kind, (nodes, outputs))
    leaf_count = int((nodes["mode"] == 0).sum())
    weights = _numbers(node, said, f"{kind.prefix}_weights", len(entries))
    values = np.zeros(leaf_count * columns)
    values[entries] = weights
    one_score = kind.prefix == "class" and columns == 1
    return TreeEnsemble(
        node=node,
        roots=np.flatnonzero(parent < 0)[np.argsort(tree[parent < 0], kind="stable")],
        entries=entries,
        values=values.reshape(leaf_count, columns),
        base=_base(node, said, columns, one_score=one_score),
        post_transform=str(said.get("post_transform", "NONE")),
        mean=aggregate == "AVERAGE",
        one_score=one_score,
        **nodes,
    )


def _nodes(node: NodeProto, said: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a TreeEnsemble that are one number a node."""
    tree = np.asarray(said.get("nodes_treeids", ()), np.int64)
    count = len(tree)
    if not count:
        raise ArtifactInvalid(f"{describe(node)}: nodes must be at least 1, got 0")
    modes = [str(mode) for mode in said.get("nodes_modes", ())]
    unknown = sorted(set(modes) - set(MODES))
    if unknown:
        raise ModelUnsupported(f"{describe(node)}: nodes_modes must be of {', '.join(MODES)}, got {shown(unknown[0])} ({_CURE})")
    mode = _ints(node, "nodes_modes", [MODES.index(one) for one in modes], count)
    number = _ints(node, "nodes_nodeids", said.get("nodes_nodeids", ()), count)
    feature = _ints(node, "nodes_featureids", said.get("nodes_featureids", ()), count)
    if (feature < 0).any():
        raise ArtifactInvalid(f"{describe(node)}: nodes_featureids must be at least 0, got {int(feature.min())}")
    places = _Places(node, tree, number)
    branch = np.flatnonzero(mode)
    sides = []
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        side = np.full(count, -1)
        side[branch] = places.of(tree[branch], _ints(node, name, said.get(name, ()), count)[branch], name)
        sides.append(side)
    nan_is_true = said.get("nodes_missing_value_tracks_true", ()) or np.zeros(count, np.int64)
    leaf = np.full(count, -1)
    leaf[mode == 0] = np.arange(int((mode == 0).sum()))
    return {
        "tree": tree,
        "mode": mode,
        "feature": np.where(mode > 0, feature, 0),
        "threshold": _numbers(node, said, "nodes_values", count),
        "nan_is_true": _ints(node, "nodes_missing_value_tracks_true", nan_is_true, count) != 0,
        "left": sides[0],
        "right": sides[1],
        "parent": _parents(node, tree, np.stack(sides)[:, branch], branch),
        "leaf": leaf,
    }


class _Places:
    """The places of nodes in their arrays, found by the numbers of tree and node."""

    def __init__(self, node: NodeProto, tree: Ints, number: Ints) -> None:
        self._node = node
        self._trees, at_tree = np.unique(tree, return_inverse=True)
        self._numbers, at_number = np.unique(number, return_inverse=True)
        codes = at_tree * len(self._numbers) + at_number
        self._order = np.argsort(codes, kind="stable")
        self._codes = codes[self._order]
        twice = np.flatnonzero(np.diff(self._codes) == 0)
        if len(twice):
            raise ArtifactInvalid(
                f"{describe(node)}: nodes_nodeids must be unlike within a tree, got {int(number[self._order[twice[0]]])} twice"
            )

    def of(self, tree: Ints, number: Ints, what: str) -> Ints:
        """Return the places of nodes that attribute `what` names; raises ArtifactInvalid for one that is not there."""
        at_tree = np.searchsorted(self._trees, tree).clip(max=len(self._trees) - 1)
        at_number = np.searchsorted(self._numbers, number).clip(max=len(self._numbers) - 1)
        codes = at_tree * len(self._numbers) + at_number
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        wrong = (self._codes[at] != codes) | (self._trees[at_tree] != tree) | (self._numbers[at_number] != number)
        if wrong.any():
            where = f"tree {int(tree[wrong][0])}"
            raise ArtifactInvalid(f"{describe(self._node)}: {what} must name a node of {where}, got {int(number[wrong][0])}")
        return np.asarray(self._order[at])


def _parents(node: NodeProto, tree: Ints, sides: Ints, branch: Ints) -> Ints:
    """Return the parent of each node, -1 at roots; raises ArtifactInvalid unless each node is reached once from its tree's one root."""
    parent = np.full(len(tree), -1)
    # A branch both ways of which lead to one node is one parent, not two.
    both = sides[0] != sides[1]
    children, above = np.concatenate([sides[0], sides[1][both]]), np.concatenate([branch, branch[both]])
    if (np.bincount(children, minlength=len(tree)) > 1).any():
        raise ArtifactInvalid(f"{describe(node)}: a node of a tree must have one parent at most, got two")
    parent[children] = above
    # Each jump doubles how far up a node looks: after so many the root is seen from everywhere, unless the way goes round.
    top = np.where(parent < 0, np.arange(len(tree)), parent)
    for _ in range(len(tree).bit_length()):
        top = top[top]
    roots = tree[parent < 0]
    if (parent[top] >= 0).any() or len(np.unique(roots)) != len(roots):
        raise ArtifactInvalid(f"{describe(node)}: a tree must have one root that leads to all its nodes")
    return parent


def _entries(node: NodeProto, said: dict[str, Any], kind: _Kind, trees: tuple[dict[str, Any], int]) -> tuple[Ints, int]:
    """Return where each weight of the file goes in the flat values (l * k), and k."""
    nodes, outputs = trees
    ids = np.asarray(said.get(kind.ids, ()), np.int64)
    if not len(ids):
        raise ArtifactInvalid(f"{describe(node)}: {kind.ids} must be at least 1, got 0")
    if ids.min() < 0 or ids.max() >= max(1, outputs):
        raise ArtifactInvalid(f"{describe(node)}: {kind.ids} must be 0 to {outputs - 1}, got {int(ids.min())} to {int(ids.max())}")
    columns = 1 if outputs == 2 and kind.prefix == "class" and (ids == ids[0]).all() else outputs
    if columns * len(nodes["leaf"]) > MAX_VALUES:
        raise ModelUnsupported(f"{describe(node)}: leaves times columns must be at most {MAX_VALUES} ({_CURE})")
    tree = _ints(node, f"{kind.prefix}_treeids", said.get(f"{kind.prefix}_treeids", ()), len(ids))
    name = f"{kind.prefix}_nodeids"
    number = np.asarray(said.get("nodes_nodeids", ()), np.int64)
    at = _Places(node, nodes["tree"], number).of(tree, _ints(node, name, said.get(name, ()), len(ids)), name)
    leaf = nodes["leaf"][at]
    if (leaf < 0).any():
        raise ModelUnsupported(f"{describe(node)}: {name} must name leaves, got another node ({_CURE})")
    entries = leaf * columns + (ids if columns > 1 else 0)
    if len(np.unique(entries)) != len(entries):
        raise ModelUnsupported(f"{describe(node)}: a leaf must have one weight for each of {kind.ids}, got two ({_CURE})")
    return np.asarray(entries), columns


def _base(node: NodeProto, said: dict[str, Any], columns: int, *, one_score: bool) -> Numbers:
    found = np.asarray(said.get("base_values_as_tensor", said.get("base_values", ())), np.float64).ravel()
    if not len(found):
        return np.zeros(columns)
    if one_score and len(found) == 2:
        return found[1:]
    if len(found) != columns:
        raise ModelUnsupported(f"{describe(node)}: base_values must be {columns}, got {len(found)} ({_CURE})")
    return found


def _value(node: NodeProto, name: str, attribute: Any) -> Any:
    try:
        value = helper.get_attribute_value(attribute)
        if hasattr(value, "data_type"):
            return numpy_helper.to_array(value)
    except (ValueError, TypeError, OverflowError) as problem:
        raise ArtifactInvalid(f"{describe(node)}: attribute {shown(name)} must be readable: {one_line(problem)}") from problem
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if name in ("nodes_modes", "classlabels_strings"):
        return [one.decode("utf-8", "replace") for one in value]
    return value


def _ints(node: NodeProto, name: str, found: Any, count: int) -> Ints:
    numbers = np.asarray(found, np.int64).ravel()
    if len(numbers) != count:
        raise ArtifactInvalid(f"{describe(node)}: {name} must have {count} numbers, got {len(numbers)}")
    return numbers


def _numbers(node: NodeProto, said: dict[str, Any], name: str, count: int) -> NDArray[Any]:
    """Return floating-point numbers as the file holds them, double where they are a tensor of doubles."""
    tensor = said.get(f"{name}_as_tensor")
    numbers = np.asarray(said.get(name, ()), np.float32) if tensor is None or not tensor.size else tensor.ravel()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ArtifactInvalid(f"{describe(node)}: {name} must be {count} finite numbers, got {len(numbers)}")
    return numbers


def _write_weights(node: NodeProto, weights: Numbers) -> None:
    prefix = _KINDS[node.op_type].prefix
    for attribute in node.attribute:
        if attribute.name == f"{prefix}_weights" and attribute.floats:
            del attribute.floats[:]
            attribute.floats.extend(weights.astype(np.float32).tolist())
        elif attribute.name == f"{prefix}_weights_as_tensor" and attribute.t.dims:
            dtype = numpy_helper.to_array(attribute.t).dtype
            attribute.t.CopyFrom(numpy_helper.from_array(weights.astype(dtype), attribute.t.name))
