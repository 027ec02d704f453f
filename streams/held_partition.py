"""One partition in the hands of the data plane: its monitor, its merge, how far both have got, and what is blamed for faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..detectors.monitor import Monitor
from ..schemas.dead_letters import DeadLetter
from ..schemas.records import Batch, Headers, Slice
from ..schemas.topics import DATA_PLANE_INPUTS
from .batch_cuts import halves, tombstone
from .checkpoint import Ledger
from .kafka_records import StandIn, to_record
from .merge import Merge
from .plane_inputs import Fetched

SAMPLE = 32
NEVER_MS = 1 << 62
Place = tuple[str, int]


@dataclass(slots=True)
class HeldPartition:
    """One partition held. `offsets` are the next to process, `committed` those of checkpoint `seq`; they differ while `dirty`.

    `old_parts` are parts of state given up, to be deleted with the next checkpoint; `state_bytes` of that one are written ahead.
    `is_marked`: the committed pointer says that a life works from there on. `careful`: so many records are tried in a copy of the process
    before they are taken; `pieces` come before what the merge lets go. `blamed`: records that the monitor is not given, by topic and
    offset, with the letters that become of them. `lines` are for the log once what they tell of is committed.
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
    is_marked: bool = False
    careful: int = 0
    old_parts: tuple[str, ...] = ()
    state_bytes: int = 0
    pieces: deque[Batch] = field(default_factory=deque)
    blamed: dict[Place, DeadLetter] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing buffered."""
        self.rewind()

    def rewind(self) -> None:
        """Drop what is buffered; the monitor must be that of `offsets`."""
        self.merge = Merge(DATA_PLANE_INPUTS, self.monitor.clocks)
        self.committed = dict(self.offsets)
        self.ends = dict.fromkeys(DATA_PLANE_INPUTS)
        self.dirty = False
        self.state_bytes = 0
        self.pieces.clear()
        self.blamed.clear()
        self.lines.clear()

    def add(self, kind: str, fetched: Fetched, latest_ms: int = NEVER_MS) -> None:
        """Take in what a reader got; records with a time stamp after `latest_ms` become dead letters, and tell no time."""
        messages, letters = fetched.messages, list(fetched.letters)
        timestamps_ms = [message.timestamp()[1] for message in messages]
        if messages and max(timestamps_ms) > latest_ms:
            ahead = [at for at, timestamp_ms in enumerate(timestamps_ms) if timestamp_ms > latest_ms]
            letters += [letter_of_message(messages[at], latest_ms) for at in ahead]
            messages = list(messages)
            for at in ahead:
                messages[at] = StandIn(messages[at].offset())
                timestamps_ms[at] = -1
        self.blamed.update({(letter.topic, letter.offset): letter for letter in letters})
        self.merge.add(kind, messages, timestamps_ms, at_end=fetched.end_offset is not None)
        if messages or fetched.end_offset is not None:
            self.ends[kind] = fetched.end_offset

    def take(self) -> Batch:
        """Return the next batch; where there is none the offsets move past what is no record."""
        if self.pieces:
            return self.pieces.popleft()
        batch = Batch(**{kind: columns(*found) for kind, found in self.merge.release().items()})
        if not len(batch):
            self._pass_markers()
        return batch

    def passed(self, batch: Batch) -> None:
        """Move the offsets past a batch that was processed."""
        for kind in DATA_PLANE_INPUTS:
            offsets = getattr(batch, kind).offsets
            if offsets:
                self.offsets[kind] = offsets[-1] + 1
        self.dirty = True
        self.careful = max(0, self.careful - len(batch))
        if not self.pieces:
            self._pass_markers()

    def split(self, batch: Batch) -> None:
        """Put a batch back in two pieces, to be taken one after the other."""
        self.pieces.extendleft(reversed(halves(batch, self.monitor.places(batch))))

    def blame(self, batch: Batch, letter: DeadLetter) -> None:
        """Put a tombstone in the place of a batch of one record, of which the letter is to be told."""
        self.blamed[letter.topic, letter.offset] = letter
        self.pieces.appendleft(tombstone(batch))

    def told(self, letter: DeadLetter) -> DeadLetter:
        """Return the letter of a record: another one where what the monitor got was not the record itself."""
        return self.blamed.pop((letter.topic, letter.offset), letter) if self.blamed else letter

    def is_idle(self) -> bool:
        """Return True if all there was has been processed."""
        logs = self.merge.logs.values()
        return not self.pieces and all(log.at_end and not len(log) for log in logs)

    def matches(self, seq: int, offsets: Mapping[str, int]) -> bool:
        """Return True if the monitor is that of the committed pointer."""
        return not self.dirty and self.seq == seq and self.offsets == dict(offsets)

    def matches_next(self, pointed: tuple[int, Mapping[str, int], bool] | None) -> bool:
        """Return True if what was begun is the committed checkpoint."""
        return pointed is not None and (pointed[0], dict(pointed[1])) == (self.seq + 1, self.offsets)

    def _pass_markers(self) -> None:
        # Behind the last record of a transactional writer lies a marker; whoever compares offsets with ends would wait for ever.
        for kind, end in self.ends.items():
            if end is not None and end > self.offsets[kind] and not len(self.merge.logs[kind]):
                self.offsets[kind] = end
                self.dirty = True


def letter_of(batch: Batch, topics: Mapping[str, str], partition: int, why: str) -> DeadLetter:
    """Return the dead letter of a batch of one record that the machine cannot take; `topics` are names by kind."""
    kind = next(kind for kind in DATA_PLANE_INPUTS if len(getattr(batch, kind)))
    source: Slice = getattr(batch, kind)
    try:
        headers = source.headers(0)
    except Exception as fault:  # noqa: BLE001 - perhaps the very fault
        headers, why = (), f"{why}; its headers are not readable: {fault}"
    return DeadLetter(
        topic=topics[kind],
        partition=partition,
        offset=source.offsets[0],
        timestamp_ms=source.timestamps_ms[0],
        key=source.keys[0],
        value=source.values[0],
        headers=headers,
        disposition="processing_error",
        message=why,
    )


def letter_of_message(message: Any, latest_ms: int) -> DeadLetter:
    """Return the dead letter of a message from the future."""
    record = to_record(message)
    return DeadLetter(
        **{name: getattr(record, name) for name in record.__struct_fields__},
        disposition="future",
        message=f"record's time stamp must be milliseconds since 1970, not after {latest_ms}, got {record.timestamp_ms}",
    )


def sampled_bytes(batch: Batch) -> int:
    """Return roughly how many bytes a batch holds."""
    size_bytes = 0
    for kind in DATA_PLANE_INPUTS:
        values = getattr(batch, kind).values
        sample = values[::SAMPLE]
        size_bytes += sum(len(value) for value in sample if value is not None) * len(values) // max(1, len(sample))
    return size_bytes


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
