"""The score head: standard nodes behind the scores of any model's graph; its own nodes, names and signature stay as they are."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import shown
from .onnx_file import clean
from .runtime import Floats, Runner
from .workpiece import Workpiece

Scores = NDArray[np.float64]
Link = Literal["softmax", "sigmoid", "pair", "logits", "number"]

FLOOR = math.exp(-8)
"""Chances are cut to [FLOOR, 1 - FLOOR] before their logarithm: what a champion is certain of must not be out of reach."""
PARITY = 1e-3
_SUM = 1e-3
"""Chances are those that lie in [0, 1] and sum to 1 within this: some champions compute them in half precision."""


class ScoreHead:
    """The open end of a champion's graph: its scores as numbers a map can work on, and the nodes that are put behind them.

    `link` says what the scores are. `softmax`: chances that sum to 1. `sigmoid`: a chance for each class. `pair`: one column, the
    chance of the second class. `logits`: anything else. `number`: a regression's prediction. What is mapped is a column for each
    class, logarithms of chances or log-odds or the logits themselves, or the prediction; whatever is made of it passes through the
    link's inverse, so that the output means what it meant.
    """

    def __init__(self, piece: Workpiece, features: Floats) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(piece.model)
        self._piece = piece
        signature = piece.signature
        self._raw_shape = np.asarray(piece.runner.raw(features[:2])).shape
        self.link = _link_of(piece.runner, features)
        self.columns = len(signature.classes) if signature.task == "classification" else 1
        graph = self._model.graph
        self._taken = _names(self._model)
        self._constants: list[TensorProto] = []
        self._nodes: list[NodeProto] = []
        made = [at for at, node in enumerate(graph.node) if signature.output_name in node.output]
        if not made:
            raise ModelUnsupported(f"model output {shown(signature.output_name)} must be computed by a node")
        self._at = made[0]
        self._raw = self._new("scores")
        outputs = graph.node[self._at].output
        outputs[list(outputs).index(signature.output_name)] = self._raw
        self._kind = piece.graph.output(signature.output_name).kind
        self._features: str | None = None
        self.scores = self._open()

    def read(self, features: Floats) -> Scores:
        """Return what the tensor `scores` holds for rows (n, k), float64 (n, columns); rows without finite scores give such."""
        scores = self._piece.runner.scores(features).astype(np.float64)
        if self.link in ("logits", "number"):
            return scores
        chances = np.clip(scores, FLOOR, 1.0 if self.link == "softmax" else 1 - FLOOR)
        if self.link == "softmax":
            return np.asarray(np.log(chances))
        odds = np.log(chances) - np.log1p(-chances)
        return np.asarray(odds / 2 if self.link == "pair" else odds)

    def features(self) -> str:
        """Return the name of the model's input as rows (n, k)."""
        if self._features is None:
            count = len(self._piece.signature.features)
            self._features = self._piece.signature.input_name
            if len(self._piece.graph.input_shape) > 1:
                self._features = self.node("Reshape", self._features, self.constant(np.array([-1, count], np.int64)))
        return self._features

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant and return its name; float64 becomes float32."""
        name = self._new("constant")
        held = array.astype(np.float32) if array.dtype == np.float64 else array
        self._constants.append(numpy_helper.from_array(np.asarray(held, order="C"), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the name of that."""
        name = self._new(kind.lower())
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def finish(self, mapped: str, meant: Scores, features: Floats) -> bytes:
        """Return the model that gives `mapped` (n, columns) in place of the champion's scores.

        `meant` is what `mapped` should hold for the rows `features`; raises ArtifactInvalid where the graph gives something else.
        """
        signature, graph = self._piece.signature, self._model.graph
        self._nodes.append(helper.make_node("Identity", [self._close(mapped)], [signature.output_name], self._new("identity")))
        whole = [*graph.node[: self._at + 1], *self._nodes, *graph.node[self._at + 1 :]]
        nodes = []
        for node in whole:
            nodes.append(NodeProto())
            nodes[-1].CopyFrom(node)
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self._constants)
        data = clean(self._model)
        said, wanted = Runner(data, signature).scores(features), self._closed(meant)
        gap = np.abs(said - wanted) / np.maximum(1.0, np.abs(wanted))
        if not bool((gap <= PARITY).all()):
            raise ArtifactInvalid(f"model with a score head must agree with what was fitted within {PARITY}, got {gap.max():.2g}")
        return data

    def _open(self) -> str:
        name = self._raw
        if self._kind != TensorProto.FLOAT:
            name = self.node("Cast", name, to=TensorProto.FLOAT)
        columns = 1 if self.link == "pair" else self.columns
        if len(self._raw_shape) != 2:
            name = self.node("Reshape", name, self.constant(np.array([-1, columns], np.int64)))
        if self.link in ("logits", "number"):
            return name
        low, high = FLOOR, 1.0 if self.link == "softmax" else 1 - FLOOR
        chances = self.node("Clip", name, *(self.constant(np.array(bound, np.float32)) for bound in (low, high)))
        log = self.node("Log", chances)
        if self.link == "softmax":
            return log
        rest = self.node("Log", self.node("Sub", self.constant(np.array([1.0], np.float32)), chances))
        odds = self.node("Sub", log, rest)
        return self.node("MatMul", odds, self.constant(np.array([[-0.5, 0.5]]))) if self.link == "pair" else odds

    def _close(self, mapped: str) -> str:
        if self.link == "softmax":
            mapped = self.node("Softmax", mapped, axis=1)
        elif self.link == "pair":
            mapped = self.node("Sigmoid", self.node("MatMul", mapped, self.constant(np.array([[-1.0], [1.0]]))))
        elif self.link == "sigmoid":
            mapped = self.node("Sigmoid", mapped)
        if len(self._raw_shape) != 2:
            mapped = self.node("Reshape", mapped, self.constant(np.array([-1, *self._raw_shape[1:]], np.int64)))
        if self._kind != TensorProto.FLOAT:
            mapped = self.node("Cast", mapped, to=self._kind)
        return mapped

    def _closed(self, mapped: Scores) -> Scores:
        """Return the scores, as a Runner gives them, that the link makes of mapped ones."""
        if self.link in ("softmax", "pair"):
            powers = np.exp(mapped - mapped.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return np.asarray(1 / (1 + np.exp(-mapped))) if self.link == "sigmoid" else mapped

    def _new(self, kind: str) -> str:
        number = len(self._taken)
        while (name := f"head_{kind}_{number}") in self._taken:
            number += 1
        self._taken.add(name)
        return name


def _link_of(runner: Runner, features: Floats) -> Link:
    """Return what the scores on rows (n, k) are."""
    signature = runner.signature
    if signature.task == "regression":
        return "number"
    scores = runner.scores(features)
    scores = scores[np.isfinite(scores).all(axis=1)]
    if not len(scores):
        raise ArtifactInvalid("model must give finite scores on some training row, got none")
    if runner.raw(features[:2]).size == 2 and len(features) > 1:
        return "pair"
    if scores.min() < -_SUM or scores.max() > 1 + _SUM:
        return "logits"
    return "softmax" if float(np.abs(scores.sum(axis=1) - 1).max()) <= _SUM else "sigmoid"


def _names(model: ModelProto) -> set[str]:
    graph = model.graph
    held = {value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)}
    for node in graph.node:
        held.update((node.name, *node.input, *node.output))
    return held
