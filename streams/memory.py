"""The memory transport: logs as lists in one process, for tests, replays and demos without a broker. Not for production: nothing
outlives the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ..schemas.errors import Conflict, SlotTaken
from ..schemas.partitions import partition_of
from ..schemas.records import Record
from .transport import Outgoing, Reader, Sender, Start, Work

Part = tuple[str, int]
NO_OFFSETS: Mapping[tuple[str, str, int], int] = MappingProxyType({})


@dataclass(slots=True)
class _Group:
    """A consumer group on one topic: offsets, attempts as (offset, count), and members by slot."""

    offsets: dict[int, int] = field(default_factory=dict)
    attempts: dict[int, tuple[int, int]] = field(default_factory=dict)
    members: dict[str, MemoryWork] = field(default_factory=dict)


class MemoryTransport:
    """Topics of `partitions` partitions each, made when first named; `clock` gives the seconds of time stamps, moved by hand."""

    name = "memory"

    def __init__(self, partitions: int = 4, clock: Callable[[], float] = time.time) -> None:
        self.partitions = partitions
        self._clock = clock
        self._logs: dict[str, list[list[Record]]] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._changed = threading.Condition()

    def sender(self) -> Sender:
        """Return a new sender."""
        return MemorySender(self)

    def reader(self, topics: Sequence[str], start: Start = "earliest") -> Reader:
        """Return a reader of all partitions of `topics` from `start`."""
        return MemoryReader(self, topics, start)

    def work(self, group: str, topic: str, slot: str) -> Work:
        """Return a member of `group`; an older one with the same slot is fenced off."""
        work = MemoryWork(self, (group, topic), slot)
        with self._changed:
            self._group(group, topic).members[slot] = work
            self._changed.notify_all()
        return work

    def expire(self, group: str, topic: str, slot: str) -> None:
        """Drop a member as the broker does once its session timed out."""
        with self._changed:
            self._group(group, topic).members.pop(slot, None)
            self._changed.notify_all()

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the offset after the last record, by partition."""
        with self._changed:
            return {partition: len(records) for partition, records in enumerate(self._topic(topic))}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's offsets by partition; partitions without one are left out."""
        with self._changed:
            return dict(self._group(group, topic).offsets)

    def members(self, group: str) -> int:
        """Return how many members the group has."""
        with self._changed:
            return len({slot for (name, _), held in self._groups.items() if name == group for slot in held.members})

    def append(self, outputs: Sequence[Outgoing], offsets: Mapping[tuple[str, str, int], int] = NO_OFFSETS) -> None:
        """Add records and set offsets by (group, topic, partition) all at once, so that no reader sees a part of them."""
        with self._changed:
            for (group, topic, part), offset in offsets.items():
                self._group(group, topic).offsets[part] = offset
            for outgoing in outputs:
                partition = outgoing.partition
                if partition is None:
                    partition = partition_of(b"" if outgoing.key is None else outgoing.key, self.partitions)
                log = self._topic(outgoing.topic)[partition]
                stamp = int(self._clock() * 1000) if outgoing.timestamp_ms is None else outgoing.timestamp_ms
                log.append(
                    Record(
                        topic=outgoing.topic,
                        partition=partition,
                        offset=len(log),
                        timestamp_ms=stamp,
                        key=outgoing.key,
                        value=outgoing.value,
                        headers=tuple(outgoing.headers),
                    )
                )
            self._changed.notify_all()

    def _topic(self, topic: str) -> list[list[Record]]:
        return self._logs.setdefault(topic, [[] for _ in range(self.partitions)])

    def _group(self, group: str, topic: str) -> _Group:
        return self._groups.setdefault((group, topic), _Group())


class MemorySender:
    """A sender that appends at once; there is never anything to wait for."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def send(self, outgoing: Outgoing) -> None:
        """Append one record."""
        self._transport.append([outgoing])

    def flush(self, timeout_s: float) -> int:
        """Return 0."""
        return 0

    def close(self) -> None:
        """Let go of nothing."""


class MemoryReader:
    """A reader of the logs by position."""

    def __init__(self, transport: MemoryTransport, topics: Sequence[str], start: Start) -> None:
        self._transport = transport
        self._targets: dict[Part, int] | None = None
        ends = self._ends(topics)
        self._topics = tuple(topics)
        self._positions = dict(ends) if start == "latest" else dict.fromkeys(ends, 0)
        if not isinstance(start, str):
            self._positions |= {part: offset for part, offset in start.items() if part in ends}

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Return up to `limit` records as soon as there is one; waits in real time, not by the transport's clock."""
        deadline = time.monotonic() + timeout_s
        changed = self._transport._changed
        with changed:
            while True:
                records = self._take(limit)
                left = deadline - time.monotonic()
                if records or left <= 0:
                    return records
                changed.wait(left)

    def at_end(self) -> bool:
        """Return True once everything that was there at the first call since it was last True has been returned."""
        if self._targets is None:
            self._targets = self._ends(self._topics)
        if any(self._positions[part] < target for part, target in self._targets.items()):
            return False
        self._targets = None
        return True

    def close(self) -> None:
        """Let go of nothing."""

    def _ends(self, topics: Sequence[str]) -> dict[Part, int]:
        return {(topic, part): end for topic in topics for part, end in self._transport.end_offsets(topic).items()}

    def _take(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for (topic, partition), position in self._positions.items():
            found = self._transport._topic(topic)[partition][position : position + limit - len(records)]
            self._positions[topic, partition] = position + len(found)
            records += found
        return records


class MemoryWork:
    """One member of a group; partitions are split by range over the slots in order, as Kafka's range assignor does."""

    def __init__(self, transport: MemoryTransport, name: tuple[str, str], slot: str) -> None:
        self._transport = transport
        self._name = name
        self._slot = slot
        self._held: Record | None = None

    def take(self, timeout_s: float) -> Record | None:
        """Return the next record, the one in hand first; raises SlotTaken once another member has the slot."""
        deadline = time.monotonic() + timeout_s
        changed = self._transport._changed
        with changed:
            while True:
                self._refuse_fenced()
                if self._held is None or not self._owns(self._held):
                    self._held = self._next()
                left = deadline - time.monotonic()
                if self._held is not None or left <= 0:
                    return self._held
                changed.wait(left)

    def ahead(self, limit: int) -> list[Record]:
        """Return the records that follow the one in hand in its partition."""
        with self._transport._changed:
            if self._held is None:
                return []
            log = self._transport._topic(self._name[1])[self._held.partition]
            return log[self._held.offset + 1 : self._held.offset + 1 + limit]

    def attempt(self, record: Record) -> int:
        """Count one more start; raises Conflict where the record is no longer ours."""
        with self._transport._changed:
            if not self._owns(record):
                raise Conflict(
                    f"record must belong to this member, got another's ({record.topic}/{record.partition}/{record.offset})"
                )
            attempts = self._group.attempts
            offset, count = attempts.get(record.partition, (record.offset, 0))
            count = count + 1 if offset == record.offset else 1
            attempts[record.partition] = (record.offset, count)
            return count

    def keep(self) -> bool:
        """Return False once the record in hand belongs to another member."""
        with self._transport._changed:
            return self._held is not None and self._owns(self._held)

    def finish(self, record: Record, outputs: Sequence[Outgoing]) -> bool:
        """Append outputs and move the offset at once; False: it belongs to another member and nothing was done."""
        with self._transport._changed:
            held = self._held
            is_behind = held is not None and held.partition == record.partition and held.offset < record.offset
            if not self._owns(held if held is not None and is_behind else record):
                return False
            self._transport.append(outputs)
            self._group.offsets[record.partition] = record.offset + 1
            self._held = None
            return True

    def close(self) -> None:
        """Leave the group."""
        with self._transport._changed:
            if self._group.members.get(self._slot) is self:
                del self._group.members[self._slot]
            self._transport._changed.notify_all()

    @property
    def _group(self) -> _Group:
        return self._transport._group(*self._name)

    def _refuse_fenced(self) -> None:
        if self._group.members.get(self._slot) not in (self, None):
            raise SlotTaken(f"slot must belong to one process, got another one with slot {self._slot} of {self._name[0]}")
        # A member whose session timed out joins again by asking for more.
        self._group.members[self._slot] = self

    def _partitions(self) -> range:
        slots = sorted(self._group.members)
        if self._group.members.get(self._slot) is not self:
            return range(0)
        index, each, extra = slots.index(self._slot), *divmod(self._transport.partitions, len(slots))
        first = index * each + min(index, extra)
        return range(first, first + each + (index < extra))

    def _owns(self, record: Record) -> bool:
        return record.partition in self._partitions() and record.offset == self._group.offsets.get(record.partition, 0)

    def _next(self) -> Record | None:
        for partition in self._partitions():
            log = self._transport._topic(self._name[1])[partition]
            offset = self._group.offsets.get(partition, 0)
            if offset < len(log):
                return log[offset]
        return None
