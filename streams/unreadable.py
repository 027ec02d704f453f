"""Batches of records that no consumer can open: small bytes that hold more than a client takes, or no bytes of their codec at all.

librdkafka (2.16) says so again at each fetch, with the offset that the batch begins at, and stays there. Where the batch ends stands in
its head, which nobody hands out; so the first offset from which reading goes on is searched for with a consumer of its own.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..schemas.dead_letters import DeadLetter
from ..settings import Settings
from .client_settings import MIB, fetch_properties, log, reader_properties

UNREADABLE = frozenset(
    {
        KafkaError._BAD_COMPRESSION,
        KafkaError._BAD_MSG,
        KafkaError._NOT_IMPLEMENTED,
        KafkaError.INVALID_MSG,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
# One answer may have come to harm on its way.
ENOUGH = 3
PROBE_S = 10.0

Part = tuple[str, int]


class Stretch(NamedTuple):
    """Offsets that cannot be read, from `first` up to `stop`, and what the client said."""

    topic: str
    partition: int
    first: int
    stop: int
    why: str

    def letter(self) -> DeadLetter:
        """Return the dead letter of all of them, under the last offset."""
        count = self.stop - self.first
        where = f"offset {self.first}" if count == 1 else f"offsets {self.first} to {self.stop - 1}"
        return DeadLetter(
            topic=self.topic,
            partition=self.partition,
            offset=self.stop - 1,
            timestamp_ms=-1,
            key=None,
            value=None,
            headers=(),
            disposition="malformed",
            message=f"records must be readable, got a batch at {where} that no consumer can open, its bytes are lost: {self.why}",
        )


class Unreadable:
    """The errors of one client's reading, and what is known of the batches behind them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: dict[Part, tuple[int, int]] = {}

    def stretch(self, message: Any) -> Stretch | None:
        """Return what to pass over after an error of a consumer; None for another error, or one that may not come again."""
        error = message.error()
        if error.code() not in UNREADABLE or message.offset() is None or message.offset() < 0:
            return None
        part, first = (message.topic(), message.partition()), message.offset()
        was, count = self._seen.get(part, (first, 0))
        count = count + 1 if was == first else 1
        self._seen[part] = first, count
        if count < ENOUGH:
            return None
        del self._seen[part]
        try:
            return Stretch(*part, first, _stop(self._settings, part, first), error.str())
        except KafkaException as problem:
            log.warning("the end of a batch that cannot be read is searched for again: %s", problem.args[0].str())
            return None


def _stop(settings: Settings, part: Part, first: int) -> int:
    """Return the first offset after `first` from which something else can be read, or the end."""
    properties = {**reader_properties(settings, fetch_properties(MIB, wait_ms=20)), "queued.min.messages": 1}
    consumer = Consumer(properties, logger=log)
    try:
        end = consumer.get_watermark_offsets(TopicPartition(*part), timeout=PROBE_S)[1]
        inside, outside, step = first, first + 1, 1
        while outside < end and _is_inside(consumer, part, first, outside):
            inside, step = outside, step * 2
            outside = min(end, inside + step)
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if _is_inside(consumer, part, first, middle):
                inside = middle
            else:
                outside = middle
        return outside
    finally:
        consumer.close()


def _is_inside(consumer: Consumer, part: Part, first: int, offset: int) -> bool:
    """Return True if whoever reads from `offset` meets the batch that begins at `first`."""
    consumer.assign([TopicPartition(*part, offset)])
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is None:
            continue
        error: Any = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return False
        if error.code() in UNREADABLE:
            return message.offset() == first
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"nothing was read from offset {offset} of {part}"))
