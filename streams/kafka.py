"""The Kafka transport: senders and readers over confluent-kafka; `kafka_work.py` holds the transactional worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from ..schemas.errors import BrokerUnavailable, Conflict, NotFound, SettingsInvalid
from ..schemas.records import Record
from ..settings import Settings
from . import at_fork
from .client_settings import Membership, log, producer_properties, reader_properties, shown_address
from .fatal_error import RAISED, FatalError
from .group_members import group_members
from .kafka_records import produce, to_record
from .kafka_work import KafkaWork
from .pulse import Pulse
from .topics import AskedAdmin, admin_client, partition_counts, unavailable
from .transport import Outgoing, Reader, Sender, Start, Work
from .unreadable import Unreadable

TIMEOUT_S = 10.0
CLOSE_FLUSH_S = 2.0
READ_CHUNK = 500
POLL_BYTES = 32 * 1024 * 1024
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

T = TypeVar("T")


class SteadyAdmin:
    """One admin client, and a new one after a question that stayed without an answer: it may be deaf for good (pulse.py)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AskedAdmin | None = None

    def ask(self, question: Callable[[AskedAdmin], T]) -> T:
        """Return what `question` returns; raises what it raises."""
        if self._client is None:
            self._client = admin_client(self._settings)
        try:
            return question(self._client)
        except BrokerUnavailable:
            self._client = None
            raise

    def partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        """Return (topic, partition) of all partitions; raises NotFound, BrokerUnavailable."""
        return self.ask(lambda client: topic_partitions(self._settings, client, topics))

    def offsets(self, partitions: Sequence[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        """Return the offset of each partition that `spec` asks for; raises BrokerUnavailable."""
        return self.ask(lambda client: list_offsets(self._settings, client, partitions, spec))


class KafkaTransport:
    """The maker of senders, readers and workers for the broker of the settings."""

    name = "kafka"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = SteadyAdmin(settings)
        self._groups: dict[str, Consumer] = {}
        at_fork.attend(self)

    def before_fork(self) -> None:
        """Do nothing: its own clients are idle between two calls."""

    def after_fork(self) -> None:
        """Forget the parent's clients, in the child."""
        at_fork.abandon(self._admin, *self._groups.values())
        self._admin, self._groups = SteadyAdmin(self._settings), {}

    def sender(self) -> Sender:
        """Return a new idempotent sender."""
        return KafkaSender(self._settings)

    def reader(self, topics: Sequence[str], start: Start = "earliest") -> Reader:
        """Return a reader of all partitions; raises NotFound for a topic that is not there, BrokerUnavailable."""
        return KafkaReader(self._settings, self._admin, topics, start)

    def work(self, group: str, topic: str, slot: str) -> Work:
        """Return a member of `group`; another process that used the slot is fenced off before this returns."""
        member = Membership(group, slot, self._settings.worker.session_timeout_s)
        return KafkaWork(self._settings, member, topic)

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the read-committed end of each partition; transaction markers count as records."""
        ends = self._admin.offsets(self._admin.partitions([topic]), LATEST)
        return {partition: offset for (_, partition), offset in ends.items()}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the group's offsets by partition; partitions without one are left out."""
        asked = [TopicPartition(topic, partition) for _, partition in self._admin.partitions([topic])]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            found = self._ask_group(group, asked)
            # The markers of a transaction reach the offsets topic a moment after its commit was answered.
            errors = [part.error for part in found if part.error is not None]
            if not errors:
                return {part.partition: part.offset for part in found if part.offset >= 0}
            if time.monotonic() > deadline:
                raise unavailable(self._settings, TIMEOUT_S, KafkaException(errors[0]))
            time.sleep(0.02)

    def members(self, group: str) -> int:
        """Return how many members the group has; raises BrokerUnavailable."""
        return self._admin.ask(lambda client: group_members(self._settings, client, group, TIMEOUT_S))

    def _ask_group(self, group: str, asked: list[TopicPartition]) -> list[TopicPartition]:
        """Return what a consumer that never joins its group is told of its offsets.

        Not the admin client: its ListConsumerGroupOffsets ends the process while the coordinator moves (confluentinc/librdkafka#5040).
        """
        client = self._groups.get(group)
        if client is None:
            client = self._groups[group] = Consumer({**reader_properties(self._settings), "group.id": group}, logger=log)
        try:
            return client.committed(asked, TIMEOUT_S)
        except KafkaException as problem:
            self._groups.pop(group).close()
            raise unavailable(self._settings, TIMEOUT_S, problem) from None


def topic_partitions(settings: Settings, admin: AskedAdmin, topics: Sequence[str]) -> list[tuple[str, int]]:
    """Return (topic, partition) of all partitions; raises NotFound with every topic that is missing."""
    counts = partition_counts(settings, admin, TIMEOUT_S)
    missing = [topic for topic in topics if topic not in counts]
    if missing:
        raise NotFound(
            f"topic must be there, got none called {', '.join(missing)} at {shown_address(settings)} (run `driftloop init`)"
        )
    return [(topic, partition) for topic in topics for partition in range(counts[topic])]


def list_offsets(
    settings: Settings, admin: AdminClient, partitions: Sequence[tuple[str, int]], spec: OffsetSpec
) -> dict[tuple[str, int], int]:
    """Return the offset of each partition that `spec` asks for, as readers of committed records see it."""
    asked = {TopicPartition(topic, partition): spec for topic, partition in partitions}
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        futures = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_S)
        try:
            return {(part.topic, part.partition): int(future.result(TIMEOUT_S + 1.0).offset) for part, future in futures.items()}
        except (KafkaException, TimeoutError) as problem:
            if not _is_settling(problem) or time.monotonic() > deadline:
                raise unavailable(settings, TIMEOUT_S, problem) from None
        time.sleep(0.05)


def _is_settling(problem: Exception) -> bool:
    # A partition just made or moved: known, while its leader does not know of it yet.
    codes = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
    return isinstance(problem, KafkaException) and problem.args[0].code() in codes


class KafkaSender:
    """A sender through an idempotent producer; only refused records are reported back, which is cheaper."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._refused: list[KafkaError] = []
        self._open()

    def send(self, outgoing: Outgoing) -> None:
        """Queue one record; raises BrokerUnavailable where the queue stays full, Conflict for a record that is too large."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                produce(self._producer, outgoing)
                self._serve(self._producer.poll, 0)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise unavailable(self._settings, TIMEOUT_S, TimeoutError()) from None
                self._serve(self._producer.poll, 0.05)
            except KafkaException as problem:
                raise Conflict(f"record must be taken by the client, got {problem.args[0].str()} ({outgoing.topic})") from problem

    def flush(self, timeout_s: float) -> int:
        """Wait for every queued record; return how many are not acknowledged yet. Raises BrokerUnavailable for refused ones.

        What waits in a client that lost the cluster, or met an error that it does not survive, is refused, and a new client takes what
        comes next.
        """
        left = self._serve(self._producer.flush, timeout_s)
        if not left:
            self._pulse.beat()
        elif self._pulse.is_lost():
            self._producer.purge()
            self._producer.flush(CLOSE_FLUSH_S)
            self._open()
            where = shown_address(self._settings)
            raise BrokerUnavailable(f"broker must take every record, got no answer and {left} given up ({where})")
        if self._refused:
            refused, self._refused = self._refused, []
            raise BrokerUnavailable(f"broker must take every record, got {len(refused)} refused: {refused[0].str()}")
        return left

    def close(self) -> None:
        """Flush for a short while and let go; what is left then is logged and lost."""
        try:
            left = self._serve(self._producer.flush, CLOSE_FLUSH_S)
        except BrokerUnavailable as problem:
            log.warning("records were refused when the sender closed: %s", problem)
            return
        if left or self._refused:
            log.warning("%d records were not acknowledged and %d refused when the sender closed", left, len(self._refused))
        self._producer.purge()
        self._producer.flush(0.1)

    def _serve(self, call: Callable[[float], Any], timeout_s: float) -> int:
        """Return what a call that runs callbacks returns; raises BrokerUnavailable for an error that the client does not survive."""
        try:
            return int(call(timeout_s))
        except RAISED as problem:
            self._fatal.note(problem)
        said = self._fatal.said
        with suppress(*RAISED):
            self._producer.purge()
            self._producer.flush(CLOSE_FLUSH_S)
        self._refused = []
        self._open()
        raise BrokerUnavailable(f"broker must take every record, got: {said} ({shown_address(self._settings)})")

    def _open(self) -> None:
        properties = {**producer_properties(self._settings), "delivery.report.only.error": True, "on_delivery": self._on_delivery}
        self._fatal = FatalError()
        try:
            producer = Producer(properties, logger=self._fatal)
        except KafkaException as problem:
            raise SettingsInvalid(
                [f"kafka must hold librdkafka properties, got {self._settings.scrubbed(problem.args[0].str())}"]
            ) from None
        self._producer, self._pulse = producer, Pulse(producer)

    def _on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        self._fatal.take()
        if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._refused.append(error)


class KafkaReader:
    """A reader of whole topics, assigned by hand; it knows the end from positions: markers end a partition as often as records."""

    def __init__(self, settings: Settings, admin: SteadyAdmin, topics: Sequence[str], start: Start) -> None:
        self._settings = settings
        self._admin = admin
        self._unreadable = Unreadable(settings)
        self._targets: dict[tuple[str, int], int] | None = None
        self._positions = admin.offsets(admin.partitions(topics), LATEST if start == "latest" else EARLIEST)
        if not isinstance(start, str):
            self._positions |= {part: offset for part, offset in start.items() if part in self._positions}
        self._open()

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Return up to `limit` records as soon as there is one, in offset order within a partition."""
        deadline = time.monotonic() + timeout_s
        records: list[Record] = []
        while not records:
            # consume() would wait its whole timeout for `limit` records: wait for one, then take what has come with it.
            first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if first is not None:
                self._pulse.beat()
                self._take(first, records)
            elif self._pulse.is_lost():
                log.warning("reading goes on with a new client: no answer from %s", shown_address(self._settings))
                self._consumer.close()
                self._open()
            if first is None or (not records and time.monotonic() >= deadline):
                return records
        size_bytes = 0
        while len(records) < limit and size_bytes < POLL_BYTES:
            more = self._consumer.consume(min(limit - len(records), READ_CHUNK), 0)
            if not more:
                break
            before = len(records)
            for message in more:
                self._take(message, records)
            size_bytes += sum(len(record.value or b"") for record in records[before:])
        return records

    def at_end(self) -> bool:
        """Return True once everything that was committed at the first call since it was last True has been returned."""
        if self._targets is None:
            self._targets = self._admin.offsets(list(self._positions), LATEST)
        if any(self._positions[part] < target for part, target in self._targets.items()):
            return False
        self._targets = None
        return True

    def close(self) -> None:
        """Let go of the partitions."""
        self._consumer.close()

    def _open(self) -> None:
        consumer = Consumer(reader_properties(self._settings), logger=log)
        consumer.assign([TopicPartition(topic, part, offset) for (topic, part), offset in self._positions.items()])
        self._consumer, self._pulse = consumer, Pulse(consumer, next(iter(self._positions))[0])

    def _take(self, message: Any, records: list[Record]) -> None:
        error = message.error()
        if error is None:
            self._positions[message.topic(), message.partition()] = message.offset() + 1
            records.append(to_record(message))
        elif error.code() == KafkaError._PARTITION_EOF:
            # Its offset lies behind the last marker, where no record ever will be.
            self._positions[message.topic(), message.partition()] = message.offset()
        elif error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART):
            raise Conflict(f"topic must be readable, got {error.str()} ({message.topic()})")
        else:
            log.warning("reading goes on after: %s", error.str())
            stretch = self._unreadable.stretch(message)
            if stretch is not None:
                log.error("records are passed over: %s", stretch.letter().message)
                self._positions[stretch.topic, stretch.partition] = stretch.stop
                self._consumer.seek(TopicPartition(stretch.topic, stretch.partition, stretch.stop))


def _result(settings: Settings, future: Future[Any]) -> Any:
    try:
        return future.result(TIMEOUT_S + 1.0)
    except (KafkaException, TimeoutError) as problem:
        raise unavailable(settings, TIMEOUT_S, problem) from None
