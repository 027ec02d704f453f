"""Records: what a transport carries, and the column form in which the data plane hands them to the monitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

Headers = tuple[tuple[str, bytes | None], ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def no_headers(index: int) -> Headers:
    """Return no headers for any record."""
    return ()


@dataclass(slots=True)
class Slice:
    """Records of one topic and partition in offset order, as columns of equal length.

    Headers cost more to read than the rest together and only odd records need them, so they come through a function of the index.
    """

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: Callable[[int], Headers] = no_headers

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.values)


@dataclass(slots=True)
class Batch:
    """What the monitor of one partition takes in at once.

    Promise of the sender: merged by stream time (the running maximum of each topic's record time stamps; at equal time models,
    then predictions, then labels; KIP-353), every record here comes after every record of the batches before.
    """

    predictions: Slice = field(default_factory=Slice)
    labels: Slice = field(default_factory=Slice)
    models: Slice = field(default_factory=Slice)

    def __len__(self) -> int:
        """Return the number of records of all topics."""
        return len(self.predictions) + len(self.labels) + len(self.models)
