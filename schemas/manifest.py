"""The manifest beside every artifact: where it came from, what it was made with, how it was judged."""

from __future__ import annotations

from typing import Any

import msgspec

from .events import RowRange, Scalar, Signature
from .verdicts import GateVerdict


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The lineage of one artifact; `digest` is the sha256 in hex of the ONNX bytes, `packages` maps names to versions.

    `definition` is the whole recipe as plain data, with every value as it was when the artifact was made.
    """

    digest: str
    size_bytes: int
    model: str
    signature: Signature
    recipe: str
    definition: dict[str, Any] | None = None
    arm: str | None = None
    job_id: str | None = None
    parent_digest: str | None = None
    parent_version: int | None = None
    rows: RowRange | None = None
    trained_rows: int = 0
    holdout_rows: int = 0
    rows_digest: str | None = None
    seed: int | None = None
    options: dict[str, Scalar] = msgspec.field(default_factory=dict)
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    cpu: dict[str, Scalar] = msgspec.field(default_factory=dict)
    verdict: GateVerdict | None = None
    latency_ms: float | None = None
    calibration: dict[str, float] | None = None
