"""Verdicts: how the gate judged a job's candidate, what each arm offered, and the rule that ended a search early."""

from __future__ import annotations

import msgspec


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of candidate and champion on the same rows, which neither had seen.

    These are the newest rows, which are held out, and where arms were cross-fitted those before them: each answered by the arm that
    the others choose, trained without it. Churn is that of the held-out rows.
    `difference` is candidate - champion, with a `confidence` interval [low, high]; higher is better for every metric here
    (errors are negated). `latency_ratio` is candidate / champion.
    """

    promoted: bool
    reasons: tuple[str, ...]
    metric: str
    candidate: float
    champion: float
    difference: float
    interval: tuple[float, float]
    rows: int
    churn: float
    size_bytes: int
    champion_size_bytes: int
    latency_ratio: float | None = None
    worst_segment: str | None = None
    worst_segment_difference: float | None = None
    worst_class: int | float | str | bool | None = None
    worst_class_difference: float | None = None
    notes: tuple[str, ...] = ()


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's metric on rows that it was not trained on."""

    arm: str
    metric: float
    rows: int
    version: int | None = None


class EarlyExit(msgspec.Struct, frozen=True, kw_only=True):
    """The rule of a recipe that ended its search: `reached` by an earlier version or the champion, `level` before the change."""

    rule: str
    reached: float
    level: float
