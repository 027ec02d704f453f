"""The transactional producer of the data plane, with its error table.

Retriable: the same call again within a deadline. Asks for an abort: abort, the caller rolls back (`MustRollBack`). Any timeout: the
outcome is unknown, and librdkafka (no KIP-890) might apply it to the next transaction, so the producer is thrown away and a new one with
the same id fences it (`OutcomeUnknown`; the caller reads the committed pointer). Fatal or fenced: another process has the slot
(`SlotTaken`), unless this process slept past its transaction's timeout, in which case the broker itself may have taken the epoch away.
A record that the broker refuses would be refused again: `Conflict`, with its topic and size.
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
from ..settings import Settings
from .bounded_call import bounded
from .client_settings import log, shown_address, transactional_properties
from .slots import slot_taken

INIT_TIMEOUT_S = 10.0
INIT_PATIENCE_S = 120.0
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.FENCED_INSTANCE_ID}
)
TIMEOUTS = frozenset({KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT, KafkaError._MSG_TIMED_OUT})
REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
# librdkafka's highest: it measures before compression, as the broker does not, and a dead letter may be a record that came compressed.
MAX_MESSAGE_BYTES = 1_000_000_000

T = TypeVar("T")


class MustRollBack(DriftloopError):
    """Say that the transaction will not commit."""


class OutcomeUnknown(DriftloopError):
    """Say that only the committed pointer can tell whether the transaction did."""


class PlaneProducer:
    """Be one slot's producer; `make` builds the client from its properties."""

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
        self._timeout_s = config.transaction_timeout_s / 2
        self._client: Any = None
        self._began_at = 0.0
        self.in_transaction = False
        self.gave_up_at = -math.inf  # monotonic, a client whose start was not answered: the broker may still take it up

    def start(self, patience_s: float = INIT_TIMEOUT_S) -> None:
        """Make a new client and fence every earlier one with this id, aborting what it left open; raises BrokerUnavailable, SlotTaken."""
        self.in_transaction = False
        if self._client is not None:
            with suppress(KafkaException):
                self._client.purge(blocking=False)
        deadline = time.monotonic() + patience_s
        self._client = self._make(self._properties, logger=log)
        while True:
            try:
                bounded(partial(self._client.init_transactions, INIT_TIMEOUT_S), INIT_TIMEOUT_S)
                return
            except KafkaException as problem:
                error = problem.args[0]
                if error.code() in FENCED or error.fatal():
                    raise self._taken(error) from None
                if error.code() in TIMEOUTS:
                    self.gave_up_at = time.monotonic()
                if time.monotonic() > deadline or not (error.retriable() or error.code() in TIMEOUTS):
                    raise BrokerUnavailable(
                        f"transactions must begin, got: {error.str()} (broker {shown_address(self._settings)})"
                    ) from None
                if error.code() in TIMEOUTS:
                    self._client = self._make(self._properties, logger=log)

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

    def _wait(self, call: Callable[[], T]) -> T:
        return self._call(lambda: bounded(call, self._timeout_s))

    def _call(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return call()
            except KafkaException as problem:
                error = problem.args[0]
                with suppress(KafkaException):
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

    def _taken(self, error: KafkaError) -> SlotTaken:
        return slot_taken("monitor", self._settings.data_plane.slot, self._settings.monitor_group, error.str())
