"""What every transport promises: Kafka (`kafka.py`) and memory (`memory.py`); one contract suite runs over both.

Everything but the data plane's hot loop and the Faust control plane speaks through these four protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from ..schemas.records import Headers, Record

Start = Literal["earliest", "latest"] | Mapping[tuple[str, int], int]


class Outgoing(NamedTuple):
    """One record to send; `partition` None follows from the key (murmur2), `timestamp_ms` None is now."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    partition: int | None = None


class Sender(Protocol):
    """A sender of records; a record is kept once `flush` returned 0."""

    def send(self, outgoing: Outgoing) -> None:
        """Queue one record; raises BrokerUnavailable where the queue stays full."""

    def flush(self, timeout_s: float) -> int:
        """Wait for every queued record; return how many are still not acknowledged. Raises BrokerUnavailable for refused ones."""

    def close(self) -> None:
        """Flush for a short while and let go."""


class Reader(Protocol):
    """A reader of committed records of whole topics, outside any consumer group."""

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Return up to `limit` records, in offset order within a partition; an empty list after `timeout_s`."""

    def at_end(self) -> bool:
        """Return True once everything that was committed when the reader last looked has been returned."""

    def close(self) -> None:
        """Let go of the partitions."""


class Work(Protocol):
    """The work of a consumer group: one record after another, each finished together with its outputs in one transaction."""

    def take(self, timeout_s: float) -> Record | None:
        """Return the next record that this member owns, or None. It comes again, here or elsewhere, until finished."""

    def ahead(self, limit: int) -> list[Record]:
        """Return records that follow the one in hand in its partition, as far as they are at hand; finishing one finishes all before it."""

    def attempt(self, record: Record) -> int:
        """Count one more start of this record durably and return the number, from 1."""

    def keep(self) -> bool:
        """Stay a member while work goes on; return False once the record belongs to another member."""

    def finish(self, record: Record, outputs: Sequence[Outgoing]) -> bool:
        """Commit outputs and the record's offset in one transaction; False: it belongs to another member, nothing was done."""

    def close(self) -> None:
        """Leave the group."""


class Transport(Protocol):
    """The maker of senders, readers and workers."""

    @property
    def name(self) -> str:
        """Return `kafka` or `memory`."""

    def sender(self) -> Sender:
        """Return a new sender."""

    def reader(self, topics: Sequence[str], start: Start = "earliest") -> Reader:
        """Return a reader of all partitions of `topics` from `start`; offsets given per (topic, partition), others earliest."""

    def work(self, group: str, topic: str, slot: str) -> Work:
        """Return a member of `group` on `topic`; `slot` names it across restarts."""

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the offset after the last committed record, by partition."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's offsets by partition; partitions without one are left out."""

    def members(self, group: str) -> int:
        """Return how many processes the group has."""
