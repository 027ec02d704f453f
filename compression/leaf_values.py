"""New leaf values for the trees of an ensemble, from the rows that fall into each leaf; the trees themselves stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..schemas.recipes import Refit
from .ml_attributes import Numbers
from .tree_ensemble import Ints, TreeEnsemble
from .tree_meaning import Meaning, best_constants, slopes

LEAST_TRAVEL = 4.0
"""Rounds times learning rate is at least this: less would leave more than exp(-4), 2 %, of what the rows say untold."""
SEEN_ROWS = 1_000
"""The rows by which forests are told from boosted trees; more would take memory for every tree, and say no more."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree with its nodes in order of depth: the place of the node above each, where each depth begins and ends, and its leaves.

    `leaf`: the numbers of its leaves in the ensemble; `at`: their places here. `columns`: those that its leaves add to.
    """

    above: Ints
    depths: tuple[slice, ...]
    leaf: Ints
    at: Ints
    columns: Ints


def is_forest(ensemble: TreeEnsemble, leaves: Ints) -> bool:
    """Return whether each tree alone gives about the answer of all, by the leaves (n, t) that rows reach; boosted trees add up to it.

    In a forest every tree has the ensemble's mean, and its share of how the whole moves with the rows. Of boosted trees the first
    has the mean, or the base has it, and the later ones add less and less.
    """
    if ensemble.mean:
        return True
    trees = leaves.shape[1]
    if trees < 2 or ensemble.base.any():
        return False
    each = ensemble.values[:, 0][leaves[-SEEN_ROWS:]] * trees
    whole = each.mean(axis=1)
    spread = float(whole.std())
    if spread == 0:
        return False
    shares = (each - each.mean(axis=0)).T @ (whole - whole.mean()) / len(whole) / spread**2
    offsets = np.abs(each.mean(axis=0) - whole.mean()) / spread
    return bool((offsets < 1).all() and (shares > 0.25).all() and (shares < 4).all())


def new_values(ensemble: TreeEnsemble, leaves: Ints, meaning: Meaning, step: Refit) -> Numbers:
    """Return leaf values (l, k) of which `step.decay` is the old one and the rest what the rows with leaves (n, t) say.

    A leaf says what its rows do, held by `step.l2` to what the node above it says, and that in turn to the one above: a leaf that no
    row reaches says what its branch does. On that the old values are better where a tenth is kept, worse from a half on.
    """
    forest = Forest(ensemble)
    return forest.averaged(leaves, meaning, step) if meaning.loss == "share" else forest.boosted(leaves, meaning, step)


class Forest:
    """The trees of an ensemble, ready to take new values."""

    def __init__(self, ensemble: TreeEnsemble) -> None:
        self._ensemble = ensemble
        self._place = np.zeros(len(ensemble.values), np.int64)
        self._trees = list(self._read())

    def averaged(self, leaves: Ints, meaning: Meaning, step: Refit) -> Numbers:
        """Return the values where each leaf holds the mean target of its rows, divided among the trees where they are summed."""
        values = self._ensemble.values.copy()
        ones = np.ones((len(leaves), 1))
        scale = 1.0 if self._ensemble.mean else 1.0 / len(self._trees)
        # What is kept of an old number is where it lies among the others, not the level of them all.
        level = 0.0 if meaning.chances else (meaning.targets - self._ensemble.sums(leaves)).mean(axis=0) * scale
        for at, tree in enumerate(self._trees):
            targets = meaning.targets[:, tree.columns]
            said = self._said(tree, leaves[:, at], (targets, ones), step.l2, targets.mean(axis=0))
            new = (said - self._ensemble.base[tree.columns]) * scale
            self._put(values, tree, new, step.decay)
        return values + step.decay * level * self._ensemble.held

    def boosted(self, leaves: Ints, meaning: Meaning, step: Refit) -> Numbers:
        """Return the values that Newton steps give, tree after tree, each from what the trees before it, new already, leave to do."""
        values = self._ensemble.values.copy()
        sums = np.tile(self._ensemble.base, (len(leaves), 1))
        rounds = list(self._rounds())
        rate = min(1.0, max(step.learning_rate, LEAST_TRAVEL / len(rounds)))
        level = best_constants(meaning) - self._ensemble.base
        sums += level
        for places in rounds:
            slope = slopes(meaning.loss, sums, meaning.targets)
            for at in places:
                tree = self._trees[at]
                first, second = -slope.first[:, tree.columns], slope.second[:, tree.columns]
                said = self._said(tree, leaves[:, at], (first, second), step.l2, np.zeros(len(tree.columns)))
                # The first tree of each column bears the level, whole, as it does where LightGBM writes it.
                self._put(values, tree, rate * said + level[tree.columns], step.decay)
                sums[:, tree.columns] += values[leaves[:, at]][:, tree.columns] - level[tree.columns]
                level[tree.columns] = 0.0
        return values

    def _said(self, tree: Tree, reached: Ints, parts: tuple[Numbers, Numbers], l2: float, start: Numbers) -> Numbers:
        """Return what each leaf of a tree says (leaves, columns): sums of the parts divided, each node held to the one above."""
        places = self._place[reached]
        above, below = (self._node_sums(tree, places, part) for part in parts)
        said = np.empty_like(above)
        said[0] = (above[0] + l2 * start) / (below[0] + l2)
        for depth in tree.depths[1:]:
            said[depth] = (above[depth] + l2 * said[tree.above[depth]]) / (below[depth] + l2)
        return np.asarray(said[tree.at])

    def _node_sums(self, tree: Tree, places: Ints, numbers: Numbers) -> Numbers:
        """Return the sum (nodes, columns) over the rows that pass each node of a tree, of whose leaves they reach `places`."""
        count = len(tree.above)
        totals = np.zeros((count, numbers.shape[1]))
        for at, column in enumerate(numbers.T):
            totals[:, at] = np.bincount(places, column, count)
        for depth in tree.depths[:0:-1]:
            np.add.at(totals, tree.above[depth], totals[depth])
        return totals

    def _put(self, values: Numbers, tree: Tree, new: Numbers, decay: float) -> None:
        where = np.ix_(tree.leaf, tree.columns)
        mixed = decay * self._ensemble.values[where] + (1 - decay) * new
        values[where] = np.where(self._ensemble.held[where], mixed, 0.0)

    def _rounds(self) -> Iterator[list[int]]:
        """Yield the places of trees that are of one round: one after the other, no two of one column."""
        places: list[int] = []
        taken: set[int] = set()
        for at, tree in enumerate(self._trees):
            columns = set(tree.columns.tolist())
            if taken & columns:
                yield places
                places, taken = [], set()
            places.append(at)
            taken |= columns
        yield places

    def _read(self) -> Iterator[Tree]:
        ensemble = self._ensemble
        depth = _depths(ensemble)
        _, rank = np.unique(ensemble.tree, return_inverse=True)
        order = np.lexsort((depth, rank))
        local = np.empty(len(order), np.int64)
        for nodes in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1):
            local[nodes] = np.arange(len(nodes))
            borders = np.flatnonzero(np.diff(depth[nodes], prepend=-1, append=-1)).tolist()
            at = np.flatnonzero(ensemble.mode[nodes] == 0)
            leaf = ensemble.leaf[nodes[at]]
            self._place[leaf] = at
            yield Tree(
                above=np.where(ensemble.parent[nodes] < 0, 0, local[ensemble.parent[nodes]]),
                depths=tuple(slice(*pair) for pair in pairwise(borders)),
                leaf=leaf,
                at=at,
                columns=np.flatnonzero(ensemble.held[leaf].any(axis=0)),
            )


def _depths(ensemble: TreeEnsemble) -> NDArray[np.int64]:
    """Return how many nodes lie above each node."""
    depth = np.zeros(len(ensemble.mode), np.int64)
    nodes, below = ensemble.roots, 0
    while len(nodes):
        depth[nodes] = below
        branches = nodes[ensemble.mode[nodes] > 0]
        nodes, below = np.unique(np.concatenate([ensemble.left[branches], ensemble.right[branches]])), below + 1
    return depth
