"""Tree ensembles from strangers: every index lies inside its array, and every node is reached once, from the root of its tree.

onnxruntime follows children, features and classes by the numbers of the file; not all of them are looked at before (1.31.1), and it
walks down each tree by recursion when it loads one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ml_attributes import Attributes, Whole

DEPTH = 1_000
NODES = 4_000_000
OUTPUTS = 10_000
POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
AGGREGATES = ("SUM", "AVERAGE", "MIN", "MAX")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF")
_MEMBER = 6  # BRANCH_MEMBER, as a number of TreeEnsemble


@dataclass(frozen=True, slots=True)
class Forest:
    """The nodes of all trees by place: children of a branch, `is_leaf` where there are none, `first` the first node of each tree."""

    is_leaf: NDArray[np.bool_]
    yes: Whole
    no: Whole
    first: Whole


def check_classifier(found: Attributes, width: int) -> int:
    """Raise ArtifactInvalid unless a TreeEnsembleClassifier is sound for rows of `width` numbers; return the steps a row takes at most."""
    labels = label_count(found, "classlabels_int64s", "classlabels_strings")
    found.text("post_transform", POST_TRANSFORMS)
    if len(found.numbers("base_values")) not in (0, 1, labels):
        raise found.invalid("base_values", f"have no, one or {labels} entries", len(found.numbers("base_values")))
    return _check_old(found, width, ("class", labels))


def check_regressor(found: Attributes, width: int) -> int:
    """Raise ArtifactInvalid unless a TreeEnsembleRegressor is sound for rows of `width` numbers; return the steps a row takes at most."""
    targets = found.whole("n_targets", 1)
    _check_outputs(found, "n_targets", targets)
    found.text("post_transform", POST_TRANSFORMS)
    found.text("aggregate_function", AGGREGATES)
    if len(found.numbers("base_values")) not in (0, targets):
        raise found.invalid("base_values", f"have no or {targets} entries", len(found.numbers("base_values")))
    return _check_old(found, width, ("target", targets))


def check_ensemble(found: Attributes, width: int) -> int:
    """Raise ArtifactInvalid unless a TreeEnsemble is sound for rows of `width` numbers; return the steps a row takes at most."""
    targets = found.whole("n_targets", 1)
    _check_outputs(found, "n_targets", targets)
    for name, most in (("post_transform", len(POST_TRANSFORMS) - 1), ("aggregate_function", len(AGGREGATES) - 1)):
        if not 0 <= found.whole(name, 0) <= most:
            raise found.invalid(name, f"be 0 to {most}", found.whole(name, 0))
    modes = found.tensor("nodes_modes", "u").ravel()
    count = _check_count(found, "nodes_modes", len(modes))
    if (modes > _MEMBER).any():
        raise found.invalid("nodes_modes", f"be 0 to {_MEMBER}", modes.max())
    _check_range(found, "nodes_featureids", found.wholes("nodes_featureids", count), width)
    for name in ("nodes_splits", "nodes_hitrates"):
        if name == "nodes_splits" or found.has(name):
            _check_size(found, name, found.tensor(name, "f").size, count)
    if found.has("nodes_missing_value_tracks_true"):
        found.wholes("nodes_missing_value_tracks_true", count)
    leaves = found.tensor("leaf_weights", "f").size
    _check_range(found, "leaf_targetids", found.wholes("leaf_targetids", leaves), targets)
    if (modes == _MEMBER).any() or found.has("membership_values"):
        members = found.tensor("membership_values", "f", gaps=True)
        _check_size(found, "membership_values", int(np.isnan(members).sum()), int((modes == _MEMBER).sum()))
    roots = found.wholes("tree_roots")
    _check_range(found, "tree_roots", roots, count)
    return _check_walk(found, _forest_of(found, count, leaves, roots))


def label_count(found: Attributes, whole: str, texts: str) -> int:
    """Return the number of class labels, which stand in one of two attributes; raises ArtifactInvalid."""
    counts = len(found.wholes(whole)), len(found.texts(texts))
    if not all(counts) and any(counts):
        _check_outputs(found, whole if counts[0] else texts, sum(counts))
        return sum(counts)
    raise found.invalid(whole, f"hold the classes, or {texts} instead of it", f"{counts[0]} and {counts[1]}")


def _check_old(found: Attributes, width: int, kind: tuple[str, int]) -> int:
    """Check nodes and weights of the operators before opset 5, whose nodes are known by the numbers of tree and node."""
    trees = found.wholes("nodes_treeids")
    count = _check_count(found, "nodes_treeids", len(trees))
    modes = found.texts("nodes_modes", count)
    wrong = set(modes) - set(MODES)
    if wrong:
        raise found.invalid("nodes_modes", f"be of {', '.join(MODES)}", min(wrong))
    _check_range(found, "nodes_featureids", found.wholes("nodes_featureids", count), width)
    found.numbers("nodes_values", count)
    for name, length in (
        ("nodes_hitrates", len(found.numbers("nodes_hitrates"))),
        ("nodes_missing_value_tracks_true", len(found.wholes("nodes_missing_value_tracks_true"))),
    ):
        _check_size(found, name, length, count if length else 0)
    places = Places(found, trees, found.wholes("nodes_nodeids", count))
    is_leaf = np.array([mode == "LEAF" for mode in modes], np.bool_)
    branches = ~is_leaf
    yes, no = (np.zeros(count, np.int64) for _ in range(2))
    for name, child in (("nodes_truenodeids", yes), ("nodes_falsenodeids", no)):
        child[branches] = places.of(name, trees[branches], found.wholes(name, count)[branches])
    steps = _check_walk(found, Forest(is_leaf, yes, no, _first_of(found, trees)))
    _check_weights(found, kind, places, is_leaf)
    return steps


class Places:
    """The places of nodes in their arrays, by number of tree and number of node."""

    def __init__(self, found: Attributes, trees: Whole, nodes: Whole) -> None:
        self._found = found
        self._trees, at_tree = np.unique(trees, return_inverse=True)
        self._nodes, at_node = np.unique(nodes, return_inverse=True)
        codes = at_tree.astype(np.int64) * len(self._nodes) + at_node
        self._order = np.argsort(codes, kind="stable")
        self._codes = codes[self._order]
        twice = np.flatnonzero(self._codes[1:] == self._codes[:-1])
        if len(twice):
            raise found.invalid("nodes_nodeids", "be there once in each tree", f"{nodes[self._order[twice[0]]]} twice")

    def of(self, name: str, trees: Whole, nodes: Whole) -> Whole:
        """Return the places of nodes that attribute `name` points at; raises ArtifactInvalid where there is none."""
        at_tree = np.minimum(np.searchsorted(self._trees, trees), len(self._trees) - 1)
        at_node = np.minimum(np.searchsorted(self._nodes, nodes), len(self._nodes) - 1)
        codes = at_tree * len(self._nodes) + at_node
        at = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        sound = (self._trees[at_tree] == trees) & (self._nodes[at_node] == nodes) & (self._codes[at] == codes)
        if not sound.all():
            lost = int(np.flatnonzero(~sound)[0])
            raise self._found.invalid(name, "point at nodes of the tree", f"node {nodes[lost]} of tree {trees[lost]}")
        return np.asarray(self._order[at])


def _first_of(found: Attributes, trees: Whole) -> Whole:
    first = np.flatnonzero(np.concatenate([[True], trees[1:] != trees[:-1]]))
    if len(np.unique(trees)) != len(first):
        raise found.invalid("nodes_treeids", "hold each tree in one piece", f"{len(first)} pieces of {len(np.unique(trees))} trees")
    return first


def _forest_of(found: Attributes, count: int, leaves: int, roots: Whole) -> Forest:
    """Return the trees of a TreeEnsemble, whose children are branches or leaves by place; leaves are put behind the branches."""
    children = []
    for side in ("true", "false"):
        places = found.wholes(f"nodes_{side}nodeids", count)
        at_leaf = found.wholes(f"nodes_{side}leafs", count)
        _check_range(found, f"nodes_{side}leafs", at_leaf, 2)
        for is_leaf, most in ((0, count), (1, leaves)):
            _check_range(found, f"nodes_{side}nodeids", places[at_leaf == is_leaf], most)
        children.append(np.concatenate([places + at_leaf * count, np.zeros(leaves, np.int64)]))
    return Forest(np.arange(count + leaves) >= count, children[0], children[1], roots)


def _check_walk(found: Attributes, forest: Forest) -> int:
    """Raise unless each node is reached once from the roots; return the steps a row takes at most."""
    seen = np.zeros(len(forest.is_leaf), np.bool_)
    level, depth = forest.first, 0
    while len(level):
        depth += 1
        if depth > DEPTH:
            raise found.invalid("nodes_truenodeids", f"make trees of a depth of at most {DEPTH}", "a deeper one")
        if seen[level].any() or len(np.unique(level)) != len(level):
            raise found.invalid("nodes_truenodeids", "lead to each node once", "a node with two parents, or a circle")
        seen[level] = True
        level = _children(forest, level[~forest.is_leaf[level]])
    if not seen.all():
        raise found.invalid("nodes_truenodeids", "lead to each node once", f"{int((~seen).sum())} nodes that no root leads to")
    return len(forest.first) * depth


def _children(forest: Forest, branches: Whole) -> Whole:
    yes, no = forest.yes[branches], forest.no[branches]
    # A tree of one leaf is a branch in TreeEnsemble, whose children are the same leaf.
    same_leaf = (yes == no) & forest.is_leaf[yes]
    return np.concatenate([yes, no[~same_leaf]])


def _check_weights(found: Attributes, kind: tuple[str, int], places: Places, is_leaf: NDArray[np.bool_]) -> None:
    name, outputs = kind
    ids = found.wholes(f"{name}_ids")
    if not len(ids):
        raise found.invalid(f"{name}_ids", "hold the weights' outputs", "none")
    _check_range(found, f"{name}_ids", ids, outputs)
    found.numbers(f"{name}_weights", len(ids))
    trees, nodes = (found.wholes(f"{name}_{part}", len(ids)) for part in ("treeids", "nodeids"))
    at = places.of(f"{name}_nodeids", trees, nodes)
    if not is_leaf[at].all():
        raise found.invalid(f"{name}_nodeids", "be leaves", f"a branch, node {nodes[~is_leaf[at]][0]}")


def _check_count(found: Attributes, name: str, count: int) -> int:
    if not 1 <= count <= NODES:
        raise found.invalid(name, f"have 1 to {NODES} entries", count)
    return count


def _check_outputs(found: Attributes, name: str, count: int) -> None:
    if not 1 <= count <= OUTPUTS:
        raise found.invalid(name, f"make 1 to {OUTPUTS} outputs", count)


def _check_range(found: Attributes, name: str, values: Whole, end: int) -> None:
    wrong = (values < 0) | (values >= end)
    if wrong.any():
        raise found.invalid(name, f"be 0 to {end - 1}", values[wrong][0])


def _check_size(found: Attributes, name: str, count: int, wanted: int) -> None:
    if count != wanted:
        raise found.invalid(name, f"have {wanted} entries", count)
