"""The interface of a graph: names, shapes and types of what it takes and gives, and whether that is what a signature promises."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..schemas.errors import ArtifactInvalid
from ..schemas.events import Signature
from ..schemas.plain_text import shown

BATCHES = (3, 7)
"""The numbers of rows for which shapes are followed through a graph."""
_SCORES = (1, 10, 11)  # ONNX's numbers of float, float16 and double, without onnx: serving processes import this


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """One output of a graph: its ONNX type, rows it gives for BATCHES[0] rows and numbers a row (None: the graph does not say).

    `sigmoid`: it is what a Sigmoid gives.
    """

    name: str
    kind: int
    rows: int | None
    columns: int | None
    sigmoid: bool


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """The interface of a graph as the graph itself tells it; `input_shape` is without the batch."""

    input_name: str
    outputs: tuple[GraphOutput, ...]
    input_shape: tuple[int, ...]
    opset: int

    @property
    def feature_count(self) -> int:
        """Return the number of numbers in one row."""
        return math.prod(self.input_shape)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of the outputs, in order."""
        return tuple(output.name for output in self.outputs)

    @property
    def output_columns(self) -> int | None:
        """Return the numbers a row of the first output, None where the graph does not say."""
        return self.outputs[0].columns

    @property
    def scores_name(self) -> str:
        """Return the name of the last output that may hold scores: classifiers of other libraries put the class before them."""
        return next((output.name for output in reversed(self.outputs) if output.kind in _SCORES), self.outputs[-1].name)

    def output(self, name: str) -> GraphOutput:
        """Return the output of that name; raises ArtifactInvalid."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise ArtifactInvalid(f"model output must be {shown(name)}, got {[shown(output) for output in self.output_names]}")


def check_signature(graph: GraphSignature, signature: Signature) -> None:
    """Raise ArtifactInvalid where the graph does not take and give what `signature` promises."""
    if graph.input_name != signature.input_name:
        raise ArtifactInvalid(f"model input must be {shown(signature.input_name)}, got {shown(graph.input_name)}")
    output = graph.output(signature.output_name)
    if graph.feature_count != len(signature.features):
        raise ArtifactInvalid(f"model input must have {len(signature.features)} features, got {graph.feature_count}")
    where = f"model output {shown(output.name)}"
    if output.kind not in _SCORES:
        raise ArtifactInvalid(f"{where} must hold scores as floating-point numbers, got ONNX type {output.kind}")
    if output.rows is not None and output.rows != BATCHES[0]:
        raise ArtifactInvalid(f"{where} must have a row for each row given, got {output.rows} for {BATCHES[0]}")
    if output.columns is not None:
        check_columns(output, output.columns, signature)


def check_columns(output: GraphOutput, columns: int, signature: Signature) -> None:
    """Raise ArtifactInvalid unless `columns` numbers a row are a score for each class, one number, or P(second class) of two."""
    wanted = len(signature.classes) if signature.task == "classification" else 1
    if columns == wanted or (columns == 1 and is_second_class(output, signature)):
        return
    problem = f"model output {shown(output.name)} must have {wanted} columns, got {columns}"
    if columns == 1 and wanted == 2:
        problem += " (one column is taken as P(second class) where the graph ends in a Sigmoid: add one, or give two columns;"
        problem += " model register --squash sigmoid adds it)"
    raise ArtifactInvalid(problem)


def is_second_class(output: GraphOutput, signature: Signature) -> bool:
    """Return whether one column of `output` is P(second class): two classes, and the graph ends in a Sigmoid."""
    return output.sigmoid and signature.task == "classification" and len(signature.classes) == 2
