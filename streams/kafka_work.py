"""One record after another from a consumer group, each finished together with its outputs in one Kafka transaction.

The error table of a transaction: retriable errors are tried again; errors that ask for it abort; any timeout has an unknown outcome and
librdkafka (no KIP-890) might apply it to the next transaction, so the producer is thrown away, a new one with the same transactional
id fences it, and the group's committed offset tells what happened.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from ..schemas.errors import BrokerUnavailable, Conflict
from ..schemas.records import Record
from ..settings import Settings
from .bounded_call import bounded, close_member
from .client_settings import MAX_MESSAGE_BYTES, Membership, log, member_properties, shown_address, transactional_properties
from .fatal_error import RAISED
from .kafka_records import produce, to_record
from .pulse import Pulse
from .slots import slot_taken
from .transport import Outgoing
from .void_transaction import Scope, abort_leftovers
from .work_errors import DISPLACED, FENCED, MOVED, REFUSED, TIMEOUTS

# What a job, its failure or its putting off is told in, which the transaction before a take-over may have begun to write.
OUTPUTS = ("models", "job-events", "jobs", "jobs.dlq")
INIT_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 10.0
TRIES = 5
AHEAD_S = 0.1
AHEAD_BYTES = 4 * 1024 * 1024

Part = tuple[str, int]


class _Next(Enum):
    DONE = "committed"
    NOT_OURS = "the record belongs to another member"
    AGAIN = "aborted: try once more if the record is still ours"
    UNKNOWN = "the outcome must be learnt from the committed offset"


class KafkaWork:
    """One member of a group. `slot` names the transactional id and the static membership, so a restart fences its predecessor."""

    def __init__(self, settings: Settings, member: Membership, topic: str) -> None:
        self._settings = settings
        self._member = member
        self._topic = topic
        self._nonce = secrets.token_hex(8)
        self._held: Record | None = None
        self._front: Record | None = None
        self._early: list[Any] = []
        self._owned: set[Part] = set()
        self._done: dict[Part, int] = {}
        self._recheck = False
        self._joining = True
        self._changes = 0
        self._paused = False
        self._fenced = False
        self._refused: KafkaError | None = None
        # First the producer: its initialisation aborts what a predecessor left open, before any offset is looked at.
        self._producer = self._new_producer()
        self._join()

    def take(self, timeout_s: float) -> Record | None:
        """Return the next record, the one in hand first; raises SlotTaken once another process has the slot."""
        if self._held is not None and self.keep():
            return self._held
        self._held = None
        self._resume()
        deadline = time.monotonic() + timeout_s
        while True:
            message: Any = self._early.pop(0) if self._early else self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if message is not None and self._is_good(message):
                part = (message.topic(), message.partition())
                if part in self._owned and message.offset() >= self._done.get(part, 0):
                    self._held = self._front = to_record(message)
                    return self._held
            if message is not None:
                self._pulse.beat()
            elif self._pulse.is_lost():
                log.warning("work goes on with a new client: no answer from %s", shown_address(self._settings))
                close_member(self._consumer)
                self._join()
            if message is None or time.monotonic() >= deadline:
                return None

    def ahead(self, limit: int) -> list[Record]:
        """Return records that follow the one in hand in its partition, as far as they have been fetched, bounded by bytes too."""
        held = self._held
        if held is None:
            return []
        self._resume()
        size_bytes = sum(len(message.value() or b"") for message in self._early)
        while len(self._early) < limit and size_bytes < AHEAD_BYTES:
            # The first wait is for what is on its way, the others for what has come with it.
            message: Any = self._consumer.poll(0.0 if self._early else AHEAD_S)
            if message is None:
                break
            if self._is_good(message):
                self._early.append(message)
                size_bytes += len(message.value() or b"")
        there = (to_record(one) for one in self._early if (one.topic(), one.partition()) == (held.topic, held.partition))
        return [record for record in there if record.offset > held.offset][:limit]

    def attempt(self, record: Record) -> int:
        """Count one more start in the metadata of the group's offset; raises Conflict where the record is no longer ours."""
        for _ in range(TRIES):
            self._wait_joined()
            if not self._is_ours(record):
                break
            offset, metadata = self._committed(record)
            count = _attempts(metadata, record.offset) + 1
            said = json.dumps({"attempt": count, "offset": record.offset})
            try:
                parts = [self._part(record, record.offset, said)]
                self._repeat(partial(self._consumer.commit, offsets=parts, asynchronous=False))
                return count
            except KafkaException as problem:
                self._settle(problem.args[0], offset)
        raise Conflict(f"record must belong to this member, got another's ({record.topic}/{record.partition}/{record.offset})")

    def keep(self) -> bool:
        """Poll with everything paused; return False once the record in hand belongs to another member."""
        if self._fenced or self._held is None:
            return False
        self._serve(0)
        if self._held is None or self._joining:
            # While the group rebalances nobody else has begun on the record yet.
            return self._held is not None
        try:
            return self._is_ours(self._held)
        except BrokerUnavailable as problem:
            log.warning("work goes on, whose it is will be asked again: %s", problem)
            return True

    def finish(self, record: Record, outputs: Sequence[Outgoing]) -> bool:
        """Commit outputs and offset together; False: it belongs to another member and nothing was done.

        Raises Conflict for an output that the broker or the client refuses, BrokerUnavailable where the outcome cannot be learnt.
        """
        for _ in range(TRIES):
            self._wait_joined()
            if not self._is_ours(record, self._first(record)):
                return False
            step = self._transact(record, outputs)
            if step is _Next.UNKNOWN:
                step = self._learn(record)
            if step is _Next.DONE:
                self._done[record.topic, record.partition] = record.offset + 1
                self._held = None
                return True
            if step is _Next.NOT_OURS:
                return False
        raise BrokerUnavailable(f"transaction must commit within {TRIES} tries, got none ({shown_address(self._settings)})")

    def close(self) -> None:
        """Leave the group; as a static member: its partitions wait for the slot's return until the session times out."""
        self._held = None
        close_member(self._consumer)
        with suppress(*RAISED):  # a fenced producer refuses even to be emptied
            self._producer.purge()
            self._producer.flush(0.1)

    def _join(self) -> None:
        self._early.clear()
        self._owned, self._joining, self._paused = set(), True, False
        consumer = Consumer(member_properties(self._settings, self._member), logger=log)
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        self._consumer, self._pulse = consumer, Pulse(consumer, self._topic)

    def _new_producer(self) -> Producer:
        name = f"{self._member.group}-{self._member.slot}"
        timeout_s = self._settings.data_plane.transaction_timeout_s
        properties = transactional_properties(self._settings, name, timeout_s)
        properties |= {"message.max.bytes": MAX_MESSAGE_BYTES, "delivery.report.only.error": True, "on_delivery": self._on_delivery}
        producer = Producer(properties, logger=log)
        try:
            self._repeat(partial(producer.init_transactions, INIT_TIMEOUT_S), INIT_TIMEOUT_S)
            scope = Scope(tuple(map(self._settings.topic, OUTPUTS)), self._member.group, self._topic)
            abort_leftovers(self._settings, producer, scope, self._repeat, CALL_TIMEOUT_S)
        except KafkaException as problem:
            raise BrokerUnavailable(
                f"transactions must begin within {INIT_TIMEOUT_S:g} s, got: {problem.args[0].str()} ({shown_address(self._settings)})"
            ) from None
        return producer

    def _transact(self, record: Record, outputs: Sequence[Outgoing]) -> _Next:
        self._refused = None
        try:
            self._producer.begin_transaction()
            for outgoing in outputs:
                self._send(outgoing)
            said = json.dumps({"by": self._nonce})
            offsets = [self._part(record, record.offset + 1, said)]
            group = self._consumer.consumer_group_metadata()
            self._repeat(partial(self._producer.send_offsets_to_transaction, offsets, group, CALL_TIMEOUT_S))
            self._repeat(partial(self._producer.commit_transaction, CALL_TIMEOUT_S))
            return _Next.DONE
        except KafkaException as problem:
            return self._after(problem.args[0])

    def _send(self, outgoing: Outgoing) -> None:
        while True:
            try:
                produce(self._producer, outgoing)
                return
            except BufferError:
                self._producer.poll(0.05)

    def _after(self, error: KafkaError) -> _Next:
        """Return what follows from the error of a transactional call, having aborted where that is possible."""
        if error.code() in FENCED:
            log.warning("slot %s of %s belongs to another process now: %s", self._member.slot, self._member.group, error.str())
            self._fenced = True
            return _Next.NOT_OURS
        if error.code() not in REFUSED and not error.txn_requires_abort():
            log.warning("a transaction's outcome is unknown, a new producer follows: %s", error.str())
            return _Next.UNKNOWN
        changes = self._changes
        try:
            self._repeat(partial(self._producer.abort_transaction, CALL_TIMEOUT_S))
        except KafkaException as problem:
            return self._after_abort(problem.args[0])
        if error.code() in MOVED:
            self._wait_change(changes)
            return _Next.AGAIN
        if self._refused is not None and self._refused.code() not in REFUSED:
            raise BrokerUnavailable(
                f"outputs must be taken by the broker, got: {self._refused.str()} ({shown_address(self._settings)})"
            )
        refused = error if self._refused is None else self._refused
        if refused.code() not in REFUSED:
            # What a refused record of the transaction before left behind, such as a gap in the numbers: the abort has mended it.
            return _Next.AGAIN
        raise Conflict(f"outputs must be records that the broker takes, got: {refused.str()}")

    def _after_abort(self, error: KafkaError) -> _Next:
        if error.code() in FENCED:
            self._fenced = True
            return _Next.NOT_OURS
        log.warning("a transaction could not be aborted, a new producer follows: %s", error.str())
        return _Next.UNKNOWN

    def _learn(self, record: Record) -> _Next:
        with suppress(KafkaException):
            self._producer.purge()
        self._producer = self._new_producer()
        offset, metadata = self._committed(record)
        if offset <= self._first(record):
            return _Next.AGAIN
        return _Next.DONE if metadata.get("by") == self._nonce and offset == record.offset + 1 else _Next.NOT_OURS

    def _serve(self, timeout_s: float) -> None:
        """Run callbacks with every partition paused; a record that slips through is kept for later."""
        if not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True
        message: Any = self._consumer.poll(timeout_s)
        if message is not None and self._is_good(message, quiet=True):
            self._early.append(message)

    def _wait_joined(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while self._joining and not self._fenced and time.monotonic() < deadline:
            self._serve(0.1)

    def _wait_change(self, changes: int) -> None:
        # The broker knows of the new generation before this member does.
        deadline = time.monotonic() + self._patience_s
        while self._changes == changes and not self._fenced and time.monotonic() < deadline:
            self._serve(0.1)

    @property
    def _patience_s(self) -> float:
        return self._member.session_timeout_s + CALL_TIMEOUT_S

    def _first(self, record: Record) -> int:
        """Return the offset of the first record that is finished with this one."""
        front = self._front
        is_before = front is not None and (front.topic, front.partition) == (record.topic, record.partition)
        return min(front.offset, record.offset) if front is not None and is_before else record.offset

    def _is_ours(self, record: Record, first: int | None = None) -> bool:
        offset, part = record.offset if first is None else first, (record.topic, record.partition)
        if self._fenced or part not in self._owned:
            return False
        if self._recheck:
            committed = self._committed(record)[0]
            self._recheck = False
            if committed > offset:
                self._done[part] = max(committed, self._done.get(part, 0))
                return False
        return offset >= self._done.get(part, 0)

    def _committed(self, record: Record) -> tuple[int, dict[str, Any]]:
        try:
            found = self._consumer.committed([TopicPartition(record.topic, record.partition)], timeout=CALL_TIMEOUT_S)[0]
        except KafkaException as problem:
            raise BrokerUnavailable(
                f"committed offset must be told, got: {problem.args[0].str()} ({shown_address(self._settings)})"
            ) from None
        if found.error is not None:
            raise BrokerUnavailable(f"committed offset must be told, got: {found.error.str()} ({shown_address(self._settings)})")
        try:
            metadata = json.loads(found.metadata) if found.metadata else {}
        except ValueError:
            metadata = {}
        return found.offset, metadata if isinstance(metadata, dict) else {}

    def _settle(self, error: KafkaError, committed: int) -> None:
        if error.code() in FENCED | DISPLACED:
            self._fenced = True
        elif error.code() in MOVED:
            self._recheck = True
            self._serve(0.1)
        elif not error.retriable() and error.code() not in TIMEOUTS:
            raise BrokerUnavailable(f"attempt must be counted, got: {error.str()} (committed offset {committed})")

    def _is_good(self, message: Any, *, quiet: bool = False) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() in DISPLACED or error.fatal():
            self._fenced = True
            if not quiet:
                raise slot_taken("worker", self._member.slot, self._member.group, error.str())
        elif error.code() != KafkaError._PARTITION_EOF:
            log.warning("work goes on after: %s", error.str())
        return False

    def _resume(self) -> None:
        if self._fenced:
            raise slot_taken("worker", self._member.slot, self._member.group, "it was fenced off")
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned = {(part.topic, part.partition) for part in partitions}
        self._early.clear()
        self._changes += 1
        self._joining = False
        self._recheck = True
        consumer.assign(partitions)
        if self._paused:
            consumer.pause(partitions)

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        # The record in hand stays: mostly the next assignment gives its partition back.
        self._left()
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        # Others may have begun on it meanwhile: it comes again as a new attempt if it comes back.
        self._left()
        self._held = None
        consumer.unassign()

    def _left(self) -> None:
        self._owned = set()
        self._changes += 1
        self._joining = True

    def _on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        purged = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
        if error is not None and self._refused is None and error.code() not in purged:
            self._refused = error

    def _part(self, record: Record, offset: int, metadata: str) -> TopicPartition:
        return TopicPartition(record.topic, record.partition, offset, metadata=metadata)

    def _repeat(self, call: Callable[[], Any], timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Make a transactional call again while it says that this is safe, and never after a timeout."""
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                bounded(call, timeout_s)
                return
            except KafkaException as problem:
                error = problem.args[0]
                if not error.retriable() or error.code() in TIMEOUTS or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _attempts(metadata: dict[str, Any], offset: int) -> int:
    count = metadata.get("attempt")
    return count if metadata.get("offset") == offset and isinstance(count, int) else 0
