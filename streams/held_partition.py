"""One partition in the hands of the data plane: its monitor, its merge, and how far both have got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..detectors.monitor import Monitor
from ..schemas.records import Batch, Headers, Slice
from ..schemas.topics import DATA_PLANE_INPUTS
from .checkpoint import Ledger
from .merge import Merge
from .plane_inputs import Fetched

SAMPLE = 32


@dataclass(slots=True)
class HeldPartition:
    """Hold one partition. `offsets` are the next to process, `committed` those of checkpoint `seq`; they differ while `dirty`.

    `old_parts` are parts of state given up, to be deleted with the next checkpoint.
    """

    partition: int
    monitor: Monitor
    seq: int
    offsets: dict[str, int]
    ledger: Ledger = field(default_factory=Ledger)
    merge: Merge[Any] = field(init=False)
    committed: dict[str, int] = field(init=False)
    ends: dict[str, int | None] = field(init=False)
    dirty: bool = False
    old_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Begin with nothing buffered."""
        self.rewind()

    def rewind(self) -> None:
        """Drop what is buffered; the monitor must be that of `offsets`."""
        self.merge = Merge(DATA_PLANE_INPUTS, self.monitor.stream_time_ms)
        self.committed = dict(self.offsets)
        self.ends = dict.fromkeys(DATA_PLANE_INPUTS)
        self.dirty = False

    def add(self, kind: str, fetched: Fetched) -> None:
        """Take in what a reader got."""
        messages = fetched.messages
        self.merge.add(kind, messages, [message.timestamp()[1] for message in messages], at_end=fetched.end_offset is not None)
        if messages or fetched.end_offset is not None:
            self.ends[kind] = fetched.end_offset

    def take(self) -> tuple[Batch, int]:
        """Return the next batch and roughly how many bytes it holds, and move the offsets past it."""
        slices = {}
        size_bytes = 0
        for kind, (messages, timestamps_ms) in self.merge.release().items():
            slices[kind] = columns(messages, timestamps_ms)
            self.offsets[kind] = slices[kind].offsets[-1] + 1
            sample = slices[kind].values[::SAMPLE]
            size_bytes += sum(len(value) for value in sample if value is not None) * len(messages) // len(sample)
            self.dirty = True
        self._pass_markers()
        return Batch(**slices), size_bytes

    def matches(self, seq: int, offsets: Mapping[str, int]) -> bool:
        """Return True if the monitor is that of the committed pointer."""
        return not self.dirty and self.seq == seq and self.offsets == dict(offsets)

    def _pass_markers(self) -> None:
        # Behind the last record of a transactional writer lies a marker; whoever compares offsets with ends would wait for ever.
        for kind, end in self.ends.items():
            if end is not None and end > self.offsets[kind] and not len(self.merge.logs[kind]):
                self.offsets[kind] = end
                self.dirty = True


def columns(messages: list[Any], timestamps_ms: list[int]) -> Slice:
    """Return messages as columns; headers are read only where asked for."""

    def headers(index: int) -> Headers:
        found = messages[index].headers()
        return () if found is None else tuple(found)

    return Slice(
        values=[message.value() for message in messages],
        keys=[message.key() for message in messages],
        offsets=[message.offset() for message in messages],
        timestamps_ms=timestamps_ms,
        headers=headers,
    )
