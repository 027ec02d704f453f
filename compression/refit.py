"""The step `refit`: new leaf values in the trees that are there, from the rows after the change; size and speed of the file stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..schemas.errors import ArtifactInvalid, JobError, ModelUnsupported
from ..schemas.plain_text import one_line
from ..schemas.recipes import Refit
from ..schemas.rows import Rows
from .job_context import JobContext
from .leaf_values import is_forest, new_values
from .ml_attributes import Numbers
from .onnx_checks import describe
from .onnx_file import clean
from .runtime import Floats, open_session
from .tree_ensemble import Ints, TreeEnsemble, ensemble_place, read_ensemble
from .tree_meaning import Meaning, as_shares, classes_meaning, number_meaning
from .workpiece import Workpiece

PARITY = 1e-3
MAX_REACHED = 25_000_000
"""Rows times trees whose leaves are held: 200 MB. Where they are more, the newest rows count."""
_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Trees:
    """The trees of a model, ready for new values: where their node stands, and for `rows` the leaves (n, t) and what the sums mean."""

    piece: Workpiece
    place: int
    ensemble: TreeEnsemble
    rows: Rows
    leaves: Ints
    meaning: Meaning

    def finish(self, values: Numbers) -> bytes:
        """Return the model with new leaf values; raises ArtifactInvalid where it does not say what they mean."""
        changed = self.ensemble.with_values(values)
        model = ModelProto()
        model.CopyFrom(self.piece.model)
        model.graph.node[self.place].CopyFrom(changed.node)
        data = clean(model)
        said = Workpiece(data, self.piece.signature).runner.scores(self.rows.features)
        wanted = self.meaning.scores(changed.sums(self.leaves))
        gap = np.abs(said - wanted) / np.maximum(1.0, np.abs(wanted))
        if not bool((gap <= PARITY).all()):
            raise ArtifactInvalid(f"model with new leaf values must say what they mean within {PARITY}, got {gap.max():.2g}")
        return data


def refit(step: Refit, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with new leaf values, or the newest earlier version with them where `piece` is no ensemble of trees alone.

    Raises ModelUnsupported where there is none, JobError where no row has finite scores, ArtifactInvalid.
    """
    trees = _refittable(piece, context)
    shape = trees.ensemble.values.shape
    context.track.progress(0.0, f"{shape[0]} leaves of {len(trees.ensemble.roots)} trees on {len(trees.rows)} rows")
    values = new_values(trees.ensemble, trees.leaves, trees.meaning, step)
    return trees.piece.changed(trees.finish(values), trained_rows=len(trees.rows))


def _refittable(piece: Workpiece, context: JobContext) -> Trees:
    problem: ModelUnsupported | None = None
    for one in (piece, *context.earlier):
        try:
            return _trees(one, context.data.training)
        except ModelUnsupported as refused:
            problem = problem or refused
    raise ModelUnsupported(f"model or an earlier version must be one that can be refitted: {problem}")


def _trees(piece: Workpiece, rows: Rows) -> Trees:
    place = ensemble_place(piece.model)
    ensemble = read_ensemble(piece.model.graph.node[place])
    scores = piece.runner.scores(rows.features).astype(np.float64)
    sound = np.asarray(np.isfinite(scores).all(axis=1))
    if not sound.any():
        raise JobError("error", "training rows must give finite scores, got none that do")
    newest = slice(-max(1, MAX_REACHED // len(ensemble.roots)), None)
    rows, scores = rows.where(sound).take(newest), scores[sound][newest]
    leaves = ensemble.leaves(_matrix(piece, place, rows.features))
    sums, labels = ensemble.sums(leaves), rows.labels.astype(np.float64)
    if piece.signature.task == "classification":
        meaning = classes_meaning(sums, scores, labels)
    else:
        meaning = number_meaning(sums, scores, labels)
        meaning = as_shares(meaning) if is_forest(ensemble, leaves) else meaning
    return Trees(piece, place, ensemble, rows, leaves, meaning)


def _matrix(piece: Workpiece, place: int, features: Floats) -> NDArray[Any]:
    """Return what the nodes before the ensemble make of rows: what it is given, (n, features)."""
    model = ModelProto()
    model.CopyFrom(piece.model)
    graph = model.graph
    node = piece.model.graph.node[place]
    name = node.input[0]
    if name == piece.signature.input_name:
        return features
    del graph.node[place:]
    del graph.output[:]
    graph.output.add(name=name)
    del graph.value_info[:]
    session = open_session(model.SerializeToString())
    parts = []
    for start in range(0, len(features), _CHUNK_ROWS):
        chunk = features[start : start + _CHUNK_ROWS]
        shaped = np.ascontiguousarray(chunk, np.float32).reshape(len(chunk), *piece.graph.input_shape)
        try:
            parts.append(np.asarray(session.run([name], {piece.signature.input_name: shaped})[0]))
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise ArtifactInvalid(f"{describe(node)}: what is before it must run: {one_line(error)}") from error
    return np.concatenate(parts)
