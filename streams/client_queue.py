"""Where the SDK's records wait: librdkafka's bounded queue, or any transport's sender. Neither ever blocks the caller.

A producer that lost its cluster for good (pulse.py) is noticed by records that stay, and replaced by a thread of its own, which moves
them: sent twice perhaps, which the join recognises, but not lost.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from ..schemas.codecs import JSON, MSGPACK
from ..schemas.errors import BrokerUnavailable, DriftloopError, SettingsInvalid
from ..settings import Settings
from .at_fork import Patience, abandon
from .client_settings import log, producer_properties
from .fatal_error import RAISED, FatalError
from .pulse import ANSWER_S
from .transport import Outgoing, Sender

# Lists, as the producer wants them: this is the caller's time.
JSON_HEADERS: list[Any] = [("content-type", JSON.encode())]
MSGPACK_HEADERS: list[Any] = [("content-type", MSGPACK.encode())]

POLL_EVERY = 16
PURGE_S = 0.5
LOOK_S = 5.0
STUCK_S = 15.0
MOVE_S = 30.0
TURN_S = 0.02
PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


def content_type(value: bytes) -> list[Any]:
    """Return the headers that name the format of an event, (name, bytes) each."""
    # `{` opens JSON, which text among the features makes of a packed prediction too.
    return JSON_HEADERS if value[0] == 0x7B else MSGPACK_HEADERS


class Tally(NamedTuple):
    """The records that were queued and what became of them; those in none of the other three still wait."""

    queued: int
    acked: int
    dropped: int
    failed: int


@dataclass(frozen=True, slots=True)
class Room:
    """The bounds of a queue: records, and the bytes of their keys and values."""

    records: int
    size_bytes: int

    @property
    def kbytes(self) -> int:
        """Return the bytes as librdkafka counts them."""
        return max(1, self.size_bytes // 1024)


class Queue(Protocol):
    """A queue that takes records without waiting."""

    def put(self, topic: str, key: bytes, value: bytes) -> bool:
        """Queue one record; False where the queue is full."""

    def bound(self) -> str:
        """Return the bound at which the queue is full."""

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait."""

    def tally(self) -> Tally:
        """Return the counts so far."""

    def close(self, timeout_s: float) -> None:
        """Flush, then drop and count what is left."""

    def before_fork(self) -> None:
        """Come to rest: a fork is about to copy this process."""

    def after_fork(self) -> None:
        """Become usable in a forked child."""


class KafkaQueue:
    """A queue into librdkafka. Its producer is made at the first record of each process: threads do not survive a fork."""

    def __init__(
        self,
        settings: Settings,
        room: Room,
        on_error: Callable[[DriftloopError], None],
        make: Callable[..., Producer] = Producer,
    ) -> None:
        self._properties: dict[str, Any] = {
            **producer_properties(settings),
            "queue.buffering.max.messages": room.records,
            "queue.buffering.max.kbytes": room.kbytes,
            # Only failures call back; the acknowledged are what was queued, neither waits nor failed. Calling back for each costs 1 us.
            "delivery.report.only.error": True,
        }
        self._room = room
        self._on_error = on_error
        self._make = make
        self._patience = Patience()
        self._reset()
        try:
            # Not kept: it tells of wrong properties now, not at the first record.
            Producer({**self._properties, "log_level": 0})
        except KafkaException as problem:
            raise SettingsInvalid(
                [f"kafka must hold librdkafka properties, got {settings.scrubbed(problem.args[0].str())}"]
            ) from None

    def put(self, topic: str, key: bytes, value: bytes) -> bool:
        """Queue one record; False where the queue is full. Raises BrokerUnavailable for a record that librdkafka refuses."""
        producer = self._producer if self._producer is not None else self._first()
        try:
            producer.produce(topic, value, key, headers=content_type(value))
        except BufferError:
            self._serve(producer, producer.poll, 0)
            self._look(producer)
            return False
        except KafkaException as problem:
            raise self._refusal(producer, problem.args[0], topic) from None
        with self._lock:
            self._queued += 1
        if self._queued % POLL_EVERY == 0:
            self._serve(producer, producer.poll, 0)
        if time.monotonic() >= self._look_at:
            self._look(producer)
        return True

    def bound(self) -> str:
        """Return the bound at which the queue is full."""
        waiting = 0 if self._producer is None else len(self._producer)
        return f"{self._room.records} events" if waiting >= self._room.records else f"{self._room.size_bytes} bytes"

    def flush(self, timeout_s: float) -> int:
        """Wait for acknowledgements; return how many records still wait."""
        deadline = time.monotonic() + timeout_s
        while (producer := self._producer) is not None:
            left = self._serve(producer, producer.flush, max(0.0, deadline - time.monotonic()))
            if left:
                self._look(producer)
            waiting = left + self._left_behind()
            # What a rescue moves meanwhile waits in another producer now.
            if (not waiting and producer is self._producer) or time.monotonic() >= deadline:
                return waiting
            time.sleep(TURN_S)
        return 0

    def tally(self) -> Tally:
        """Return the counts so far."""
        waiting = self._left_behind()
        producer = self._producer
        if producer is not None:
            self._serve(producer, producer.poll, 0)
            waiting += len(producer)
        with self._lock:
            acked = max(0, self._queued - self._dropped - self._failed - waiting)
            return Tally(self._queued, acked, self._dropped, self._failed)

    def close(self, timeout_s: float) -> None:
        """Flush, then drop and count what is left."""
        deadline = time.monotonic() + timeout_s - PURGE_S
        if self._rescue is not None:
            self._rescue.join(max(0.0, deadline - time.monotonic()))
        self._closing = True
        producer = self._producer
        # Dropping and counting a full queue takes its time too.
        if producer is not None and self._serve(producer, producer.flush, max(0.0, deadline - time.monotonic())):
            producer.purge()
            self._serve(producer, producer.flush, PURGE_S)

    def before_fork(self) -> None:
        """Wait until nothing waits: then no client is about to connect."""
        if self._producer is not None and len(self._producer):
            self._patience.wait(lambda timeout_s: self.flush(timeout_s) == 0)

    def after_fork(self) -> None:
        """Forget the parent's producers, in the child."""
        abandon(self._producer, self._lost)
        self._reset()

    def _reset(self) -> None:
        # A handler of SIGTERM may come back to it in the same thread.
        self._lock = threading.RLock()
        self._producer: Producer | None = None
        self._lost: Producer | None = None
        self._rescue: threading.Thread | None = None
        self._closing = False
        self._fatal, self._renew_at = FatalError(), -math.inf
        self._look_at = time.monotonic() + LOOK_S
        self._settled, self._settled_at = 0, time.monotonic()
        self._queued = 0
        self._dropped = 0
        self._failed = 0

    def _first(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = self._new()
            return self._producer

    def _new(self) -> Producer:
        return self._make({**self._properties, "on_delivery": self._on_delivery}, logger=self._fatal)

    def _serve(self, producer: Producer, call: Callable[[float], Any], timeout_s: float) -> int:
        """Make a call that runs callbacks; return how many records still wait in the producer."""
        try:
            call(timeout_s)
        except RAISED as problem:
            # Never into the caller: the records are refused by their reports.
            self._fatal.note(problem)
        return len(producer)

    def _refusal(self, producer: Producer, error: KafkaError, topic: str) -> BrokerUnavailable:
        """Return the reason why the client takes no record; after a fatal error a new client is made once in a while."""
        with self._lock:
            now, said = time.monotonic(), self._fatal.said
            if said is not None and now >= self._renew_at and producer is self._producer:
                self._renew_at, self._producer, self._fatal.said = now + STUCK_S, None, None
        return BrokerUnavailable(f"record must be taken by the client, got: {error.str() if said is None else said} ({topic})")

    def _left_behind(self) -> int:
        lost = self._lost
        return 0 if lost is None else len(lost)

    def _look(self, producer: Producer) -> None:
        """Start a rescue if records wait and none has been settled for STUCK_S."""
        now, waiting = time.monotonic(), len(producer)
        with self._lock:
            self._look_at = now + LOOK_S
            settled = self._queued - waiting
            # Logs that wait to be told are counted as records that wait: only more than ever before is progress.
            if not waiting or settled > self._settled:
                self._settled, self._settled_at = max(settled, self._settled), now
            if now - self._settled_at < STUCK_S or (self._rescue is not None and self._rescue.is_alive()):
                return
            self._settled_at = now
            self._rescue = threading.Thread(target=self._replace, args=(producer,), name="driftloop-rescue", daemon=True)
            self._rescue.start()

    def _replace(self, producer: Producer) -> None:
        """Move what waits to a new producer, if that one reaches the cluster and the present one does not."""
        fresh = self._new()
        if not _answers(fresh, 3 * ANSWER_S) or _answers(producer, ANSWER_S):
            return
        log.warning("sending goes on with a new client: the one before lost the cluster with %d events waiting", len(producer))
        self._lost, self._producer = producer, fresh
        time.sleep(TURN_S)  # for a call that has the lost one in hand already
        producer.purge()
        self._serve(producer, producer.flush, MOVE_S)
        self._lost = None

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            return
        self._fatal.take()
        is_purged, said = error.code() in PURGED, self._fatal.said
        if is_purged and said is None and self._moved(message):
            return
        with self._lock:
            # A fatal error purges what waits.
            if is_purged and said is None:
                self._dropped += 1
                return
            self._failed += 1
        self._on_error(BrokerUnavailable(f"broker must take the record, got: {error.str() if said is None else said}"))

    def _moved(self, message: Any) -> bool:
        """Return True if this is a record of a lost producer that the new one took."""
        if self._lost is None or self._producer is None or self._closing:
            return False
        topic, key, value, stamp_ms = message.topic(), message.key(), message.value(), message.timestamp()[1]
        try:
            # Reports bring no headers.
            self._producer.produce(topic, value, key, headers=content_type(value), timestamp=stamp_ms)
        except BufferError:
            return False
        return True


def _answers(producer: Producer, timeout_s: float) -> bool:
    try:
        return bool(producer.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


class TransportQueue:
    """A queue that is any transport, such as the memory transport."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._lock = threading.RLock()
        self._queued = 0
        self._failed = 0
        self._waiting = 0

    def put(self, topic: str, key: bytes, value: bytes) -> bool:
        """Send one record."""
        with self._lock:
            self._sender.send(Outgoing(topic, key, value, tuple(content_type(value))))
            self._queued += 1
            self._waiting += 1
        return True

    def bound(self) -> str:
        """Return the bound at which the queue is full: it never is."""
        return "no event"

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

    def before_fork(self) -> None:
        """Do nothing: no thread sends."""

    def after_fork(self) -> None:
        """Keep the sender: memory is copied with the process."""
        self._lock = threading.RLock()
