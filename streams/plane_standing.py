"""Where a data plane stands: what it has done, for whoever watches it, and how it is with its group and its transactions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What a data plane did in this process; records and pairs count again after a rollback."""

    partitions: tuple[int, ...] = ()
    records: int = 0
    pairs: int = 0
    commits: int = 0
    rollbacks: int = 0
    restored_s: float = 0.0
    last_commit_at: float | None = None


@dataclass(slots=True)
class Standing:
    """How a data plane is with its group and its transactions.

    `is_stale`: the producer is not to be used before it was made anew. `failed`: what a callback could not raise.
    """

    is_member: bool = False
    is_stale: bool = False
    rolled_back: int = 0
    failed: Exception | None = None
