"""The workpiece: a model on its way through the steps of an arm, loaded once; what is made of it is made when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..schemas.events import Signature
from ..schemas.rows import Rows
from .graph_signature import GraphSignature
from .onnx_file import graph_signature, load_onnx
from .runtime import Runner, outcomes
from .store import digest_of

if TYPE_CHECKING:
    from .importer import ImportedModel


@dataclass(frozen=True, eq=False)
class Workpiece:
    """A model of `signature` as ONNX bytes.

    `version`: it is this registered version, unchanged. `trained_rows`: labelled rows it was trained on here. `ranges`: what its
    activations were calibrated to. Any property but the digest raises ArtifactInvalid where the bytes are no model of the signature.
    """

    onnx: bytes
    signature: Signature
    version: int | None = None
    trained_rows: int = 0
    ranges: dict[str, float] | None = None

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the bytes in hex."""
        return digest_of(self.onnx)

    @cached_property
    def model(self) -> ModelProto:
        """Return the checked model; nobody may change it."""
        return load_onnx(self.onnx)

    @cached_property
    def graph(self) -> GraphSignature:
        """Return the names and shapes of the model."""
        return graph_signature(self.model)

    @cached_property
    def runner(self) -> Runner:
        """Return the model as serving runs it."""
        return Runner(self.onnx, self.signature, self.graph)

    @cached_property
    def trainable(self) -> ImportedModel:
        """Return the model in torch; who trains it takes a twin. Raises ModelUnsupported."""
        from .importer import import_model

        return import_model(self.model)

    def results(self, rows: Rows) -> NDArray[np.float64]:
        """Return one number a row, higher is better."""
        return outcomes(self.runner.scores(rows.features), rows, self.signature.task)

    def changed(self, onnx: bytes, trained_rows: int = 0, ranges: dict[str, float] | None = None) -> Workpiece:
        """Return what a step made of this one."""
        return replace(self, onnx=onnx, version=None, trained_rows=max(trained_rows, self.trained_rows), ranges=ranges)
