"""Between our records and confluent-kafka's messages."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer

from ..schemas.records import Record
from .transport import Outgoing


class StandIn:
    """An empty message in the place of one that is not given on; -1 is no time stamp."""

    __slots__ = ("_offset", "_timestamp_ms")

    def __init__(self, offset: int, timestamp_ms: int = -1) -> None:
        self._offset = offset
        self._timestamp_ms = timestamp_ms

    def offset(self) -> int:
        """Return the offset."""
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of time stamp and its value, as a message does."""
        return 0, self._timestamp_ms

    def key(self) -> None:
        """Return nothing."""

    def value(self) -> None:
        """Return nothing."""

    def headers(self) -> None:
        """Return nothing."""


def to_record(message: Any) -> Record:
    """Return the record of a message that carries no error (its stubs call every field optional)."""
    return Record(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
    )


def produce(producer: Producer, outgoing: Outgoing) -> None:
    """Queue one record on `producer`; raises BufferError where its queue is full, KafkaException where it takes no such record."""
    producer.produce(
        outgoing.topic,
        value=outgoing.value,
        key=outgoing.key,
        headers=list(outgoing.headers),
        # 0 means now.
        timestamp=0 if outgoing.timestamp_ms is None else outgoing.timestamp_ms,
        partition=-1 if outgoing.partition is None else outgoing.partition,
    )
