"""The transactional producer of the data plane, with its error table.

Retriable: the same call again within a deadline. Asks for an abort: abort, the caller rolls back (`MustRollBack`). Any timeout: the
outcome is unknown, and librdkafka (no KIP-890) might apply it to the next transaction, so the producer is thrown away and a new one with
the same id fences it (`OutcomeUnknown`; the caller reads the committed pointer). Fatal or fenced: another process has the slot
(`SlotTaken`), unless this process slept past its transaction's timeout, in which case the broker itself may have taken the epoch away.
A record that the broker refuses would be refused again: `Conflict`, with its topic and size; one that is too large can be cut (`TooLarge`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from ..schemas.errors import BrokerUnavailable, Conflict, DriftloopError, SlotTaken
from ..schemas.records import Headers
from ..schemas.topics import DATA_PLANE_INPUTS
from ..settings import Settings
from .bounded_call import bounded
from .client_settings import log, shown_address, transactional_properties
from .slots import slot_taken
from .void_transaction import Scope, abort_leftovers

OUTPUTS = ("drift", "metrics", "state", *(f"{kind}.dlq" for kind in DATA_PLANE_INPUTS))
INIT_TIMEOUT_S = 10.0
INIT_PATIENCE_S = 120.0
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.FENCED_INSTANCE_ID}
)
TIMEOUTS = frozenset({KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT, KafkaError._MSG_TIMED_OUT})
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
REFUSED = TOO_LARGE | frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
# librdkafka's highest: it measures before compression, as the broker does not, and a dead letter may be a record that came compressed.
MAX_MESSAGE_BYTES = 1_000_000_000
LEAST_BATCH_BYTES = 16_384

T = TypeVar("T")


class MustRollBack(DriftloopError):
    """A transaction that will not commit."""


class OutcomeUnknown(DriftloopError):
    """A transaction of which only the committed pointer can tell whether it was committed."""


class TooLarge(DriftloopError):
    """A record, or a batch of records, that is larger than its `topic` takes."""

    def __init__(self, topic: str, message: str) -> None:
        self.topic = topic
        super().__init__(message)


class PlaneProducer:
    """The producer of one slot; `make` builds the client from its properties."""

    def __init__(self, settings: Settings, make: Callable[..., Any] = Producer) -> None:
        config = settings.data_plane
        self._settings = settings
        self._make = make
        self._properties = {
            **transactional_properties(settings, f"{settings.monitor_group}-{config.slot}", config.transaction_timeout_s),
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
        }
        self._refused: str | None = None
        self._too_large: str | None = None
        self._scope = Scope(tuple(map(settings.topic, OUTPUTS)), settings.monitor_group, settings.topic("models"))
        self._timeout_s = config.transaction_timeout_s / 2
        self._client: Any = None
        self._began_at = 0.0
        self.in_transaction = False
        self.gave_up_at = -math.inf  # monotonic, a client whose start was not answered: the broker may still take it up

    def start(self, patience_s: float = INIT_TIMEOUT_S) -> None:
        """Make a new client and fence every earlier one with this id, aborting what it left open; raises BrokerUnavailable, SlotTaken."""
        self.in_transaction = False
        self._refused = self._too_large = None
        self._purge()
        deadline = time.monotonic() + patience_s
        self._client = self._make(self._properties, logger=log)
        while True:
            try:
                bounded(partial(self._client.init_transactions, INIT_TIMEOUT_S), INIT_TIMEOUT_S)
                self._began_at = time.monotonic()
                abort_leftovers(self._settings, self._client, self._scope, self._repeat_start, self._timeout_s)
                return
            except KafkaException as problem:
                error = problem.args[0]
                if error.code() in FENCED or error.fatal():
                    raise self._taken(error) from None
                if error.code() in TIMEOUTS:
                    self.gave_up_at = time.monotonic()
                again = error.code() in TIMEOUTS or error.txn_requires_abort()
                if time.monotonic() > deadline or not (error.retriable() or again):
                    raise BrokerUnavailable(
                        f"transactions must begin, got: {error.str()} (broker {shown_address(self._settings)})"
                    ) from None
                if again:
                    self._purge()
                    self._client = self._make(self._properties, logger=log)

    def limit_batches(self, size_bytes: int) -> bool:
        """Send batches of at most this size, single records excepted, from the next start on; return True if they were larger before."""
        was = int(self._properties["batch.size"])
        self._properties["batch.size"] = max(LEAST_BATCH_BYTES, min(was, size_bytes))
        return bool(self._properties["batch.size"] < was)

    def halve_batches(self) -> None:
        """Send batches of half the size from the next start on."""
        self.limit_batches(int(self._properties["batch.size"]) // 2)

    def begin(self) -> None:
        """Begin a transaction unless one is open."""
        if not self.in_transaction:
            self._call(self._client.begin_transaction)
            self.in_transaction = True
            self._began_at = time.monotonic()

    def produce(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Queue one record of the open transaction."""
        while True:
            try:
                self._call(
                    lambda: self._client.produce(topic, key=key, value=value, partition=partition, headers=list(headers) or None)
                )
                return
            except BufferError:
                self._client.poll(0.01)

    def commit(self, offsets: Sequence[TopicPartition], group_metadata: Any) -> None:
        """Commit the open transaction together with the offsets."""
        self._wait(partial(self._client.send_offsets_to_transaction, list(offsets), group_metadata, self._timeout_s))
        self._wait(partial(self._client.commit_transaction, self._timeout_s))
        self.in_transaction = False

    def abort(self) -> None:
        """Abort the open transaction; raises OutcomeUnknown where only a new producer can."""
        if not self.in_transaction:
            return
        try:
            self._wait(partial(self._client.abort_transaction, self._timeout_s))
        except MustRollBack as problem:
            raise OutcomeUnknown(str(problem)) from None
        self.in_transaction = False

    def close(self) -> None:
        """Let go; an open transaction is aborted."""
        if self._client is not None:
            with suppress(KafkaException, DriftloopError):
                self.abort()

    def _purge(self) -> None:
        if self._client is not None:
            with suppress(KafkaException):
                self._client.purge(blocking=False)

    def _repeat_start(self, call: Callable[[], T]) -> T:
        """Make a call of the start again while it says that this is safe."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return bounded(call, self._timeout_s)
            except KafkaException as problem:
                error = problem.args[0]
                if not error.retriable() or error.code() in TIMEOUTS or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _wait(self, call: Callable[[], T]) -> T:
        return self._call(lambda: bounded(call, self._timeout_s))

    def _call(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return call()
            except KafkaException as problem:
                error = problem.args[0]
                # A fatal error that comes up here as well makes the callback seem at fault (SystemError).
                with suppress(KafkaException, SystemError):
                    self._client.poll(0)  # for the reports on refused records
                self._classify(error)
                if time.monotonic() > deadline:
                    raise OutcomeUnknown(f"transaction must go on, got: {error.str()}") from None
                time.sleep(0.01)

    def _classify(self, error: KafkaError) -> None:
        """Raise what follows from an error; return where the call is to be repeated."""
        if error.fatal() or error.code() in FENCED:
            slept_s = time.monotonic() - self._began_at
            if self.in_transaction and slept_s > self._properties["transaction.timeout.ms"] / 1000:
                raise OutcomeUnknown(f"transaction timed out after {slept_s:.1f} s: {error.str()}")
            raise self._taken(error)
        if self._refused is not None or error.code() in REFUSED:
            said = error.str() if self._refused is None else self._refused
            if self._too_large is not None:
                raise TooLarge(self._too_large, f"records must fit their topic, got: {said}")
            raise Conflict(f"records must be ones that the broker takes, got: {said}")
        if error.txn_requires_abort():
            raise MustRollBack(f"transaction must be aborted: {error.str()}")
        if error.code() in TIMEOUTS or not error.retriable():
            raise OutcomeUnknown(f"transaction's outcome is unknown: {error.str()}")

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        # What is purged with an abort is reported as well.
        if error is None or error.code() not in REFUSED or self._refused is not None:
            return
        size_bytes = sum(len(part) for part in (message.key(), message.value()) if part is not None)
        where = f"{message.topic()}/{message.partition()}, {size_bytes} bytes and headers"
        self._refused = f"{error.str()} ({where}); see max.message.bytes of the topic"
        self._too_large = message.topic() if error.code() in TOO_LARGE else None

    def _taken(self, error: KafkaError) -> SlotTaken:
        return slot_taken("monitor", self._settings.data_plane.slot, self._settings.monitor_group, error.str())
