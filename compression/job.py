"""What a job is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..schemas.events import RowRange, Scalar, Signature
from ..schemas.manifest import Manifest
from ..schemas.recipes import Recipe
from ..schemas.rows import Rows
from ..schemas.verdicts import ArmResult, EarlyExit, GateVerdict


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model: its number, digest and ONNX bytes."""

    version: int
    digest: str
    onnx: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A job: the recipe, the champion, earlier versions, the rows after the change and some from before it.

    The newest share of `rows` is held out and never trained on. `row_range` says where `rows` came from, for the manifest.
    """

    job_id: str
    model: str
    recipe: Recipe
    champion: ModelVersion
    signature: Signature
    rows: Rows
    old_rows: Rows | None = None
    earlier: tuple[ModelVersion, ...] = ()
    options: Mapping[str, Scalar] = field(default_factory=dict)
    row_range: RowRange | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judged job: the verdict on the best candidate, and the candidate unless it is a recalled version.

    `early_exit`: the rule that ended the search before any arm trained.
    """

    verdict: GateVerdict
    arm: str
    arms: tuple[ArmResult, ...]
    recalled_version: int | None = None
    onnx: bytes | None = None
    manifest: Manifest | None = None
    early_exit: EarlyExit | None = None
