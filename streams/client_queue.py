"""Where the SDK's records wait: librdkafka's bounded queue, or any transport's sender. Neither ever blocks the caller."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from ..schemas.errors import BrokerUnavailable, DriftloopError, SettingsInvalid
from ..schemas.records import Headers
from ..settings import Settings
from .client_settings import log, producer_properties
from .transport import Outgoing, Sender

ContentType = list[tuple[str, str | bytes | None]]

POLL_EVERY = 16
PURGE_S = 0.5
PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


class Tally(NamedTuple):
    """Count the records that were queued and what became of them; those in none of the other three still wait."""

    queued: int
    acked: int
    dropped: int
    failed: int


class Queue(Protocol):
    """Take records without waiting."""

    def put(self, topic: str, key: bytes, value: bytes, headers: ContentType) -> bool:
        """Queue one record; False where the queue is full."""

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait."""

    def tally(self) -> Tally:
        """Return the counts so far."""

    def close(self, timeout_s: float) -> None:
        """Flush, then drop and count what is left."""

    def after_fork(self) -> None:
        """Become usable in a forked child."""


class KafkaQueue:
    """Queue into librdkafka. Its producer is made at the first record of each process: threads do not survive a fork."""

    def __init__(self, settings: Settings, max_records: int, on_error: Callable[[DriftloopError], None]) -> None:
        self._properties: dict[str, Any] = {
            **producer_properties(settings),
            "queue.buffering.max.messages": max_records,
            # Only failures call back; the acknowledged are what was queued, neither waits nor failed. Calling back for each costs 1 us.
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        self._on_error = on_error
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._reset()
        try:
            # Not kept: it tells of wrong properties now, not at the first record.
            Producer({**self._properties, "log_level": 0})
        except KafkaException as problem:
            raise SettingsInvalid([f"kafka must hold librdkafka properties, got {problem.args[0].str()}"]) from None

    def put(self, topic: str, key: bytes, value: bytes, headers: ContentType) -> bool:
        """Queue one record; False where the queue is full. Raises BrokerUnavailable for a record that librdkafka refuses."""
        producer = self._producer if self._producer is not None else self._make()
        try:
            producer.produce(topic, value, key, headers=headers)
        except BufferError:
            producer.poll(0)
            return False
        except KafkaException as problem:
            raise BrokerUnavailable(f"record must be taken by the client, got {problem.args[0].str()} ({topic})") from None
        with self._lock:
            self._queued += 1
        if self._queued % POLL_EVERY == 0:
            producer.poll(0)
        return True

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait."""
        return 0 if self._producer is None else int(self._producer.flush(timeout_s))

    def tally(self) -> Tally:
        """Return the counts so far."""
        waiting = 0
        if self._producer is not None:
            self._producer.poll(0)
            waiting = len(self._producer)
        with self._lock:
            acked = max(0, self._queued - self._dropped - self._failed - waiting)
            return Tally(self._queued, acked, self._dropped, self._failed)

    def close(self, timeout_s: float) -> None:
        """Flush, then drop and count what is left."""
        producer = self._producer
        # Dropping and counting a full queue takes its time too.
        if producer is not None and producer.flush(max(0.0, timeout_s - PURGE_S)):
            producer.purge()
            producer.flush(PURGE_S)

    def after_fork(self) -> None:
        """Forget the parent's producer, in the child."""
        if self._producer is not None:
            # Its destructor would wait for threads that only the parent has: it must never run here.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
            self._producer = None
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._queued = 0
        self._dropped = 0
        self._failed = 0

    def _make(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._properties, logger=log)
            return self._producer

    def _on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            return
        with self._lock:
            if error.code() in PURGED:
                self._dropped += 1
                return
            self._failed += 1
        self._on_error(BrokerUnavailable(f"broker must take the record, got: {error.str()}"))


class TransportQueue:
    """Send through any transport, such as the memory transport."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._lock = threading.Lock()
        self._queued = 0
        self._failed = 0
        self._waiting = 0

    def put(self, topic: str, key: bytes, value: bytes, headers: ContentType) -> bool:
        """Send one record."""
        with self._lock:
            self._sender.send(Outgoing(topic, key, value, _as_bytes(headers)))
            self._queued += 1
            self._waiting += 1
        return True

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait. A sender that refuses fails all that waited."""
        with self._lock:
            try:
                self._waiting = self._sender.flush(timeout_s)
            except BrokerUnavailable:
                self._failed += self._waiting
                self._waiting = 0
                raise
            return self._waiting

    def tally(self) -> Tally:
        """Return the counts so far; what waits is known after a flush."""
        with self._lock:
            return Tally(self._queued, self._queued - self._waiting - self._failed, 0, self._failed)

    def close(self, timeout_s: float) -> None:
        """Flush and close the sender; what is left counts as failed."""
        left = self.flush(timeout_s)
        with self._lock:
            self._failed += left
            self._waiting = 0
        self._sender.close()

    def after_fork(self) -> None:
        """Keep the sender: memory is copied with the process."""
        self._lock = threading.Lock()


def _as_bytes(headers: ContentType) -> Headers:
    return tuple((name, value.encode() if isinstance(value, str) else value) for name, value in headers)
