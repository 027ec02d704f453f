"""Squash: the activation that a graph leaves to whoever calls it, put behind its scores, so that they are chances."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from ..schemas.errors import ArtifactInvalid
from ..schemas.plain_text import shown

SQUASHES = {"softmax": "Softmax", "sigmoid": "Sigmoid"}
_SUM = 1e-3


def squash(model: ModelProto, output: str, how: str) -> str:
    """Put a Softmax or Sigmoid behind the `output` of `model`, which keeps its name; return what to say of it.

    Raises ArtifactInvalid where the graph ends in one already.
    """
    graph = model.graph
    maker = next((node for node in graph.node if output in node.output), None)
    if maker is not None and maker.op_type in SQUASHES.values():
        raise ArtifactInvalid(f"output {shown(output)} must be no chances yet to be squashed, got those of a {maker.op_type}")
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    raw = next(name for at in range(len(taken) + 1) if (name := f"{output}_raw{at or ''}") not in taken)
    for node in graph.node:
        for part in (node.input, node.output):
            for at, name in enumerate(part):
                if name == output:
                    part[at] = raw
    operator = SQUASHES[how]
    graph.node.append(helper.make_node(operator, [raw], [output], f"driftloop_{how}"))
    if how == "softmax":
        graph.node[-1].attribute.append(helper.make_attribute("axis", -1))
    return f"a {operator} is put behind output {shown(output)}"


def are_chances(batches: Iterable[NDArray[np.generic]]) -> bool:
    """Return whether each finite row of the batches lies in 0 to 1 and, where it has several numbers, sums to 1."""
    for batch in batches:
        rows = batch.astype(np.float64).reshape(len(batch), -1)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if (rows < -_SUM).any() or (rows > 1 + _SUM).any():
            return False
        if rows.shape[1] > 1 and (np.abs(rows.sum(axis=1) - 1) > _SUM).any():
            return False
    return True
