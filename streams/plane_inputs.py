"""What the data plane reads: a group member that owns partitions, and one reader for each input topic that fetches them.

The member only takes part in the group (its partitions stay paused); the readers assign themselves what it owns. So the merge can ask
for the topic it waits for, where one consumer would hand out whatever was fetched first: labels are ten times smaller than predictions,
run far ahead of them, and each pause throws a fetch queue away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..schemas.dead_letters import DeadLetter
from ..schemas.errors import BrokerUnavailable, SnapshotInvalid, TopicMismatch
from ..schemas.topics import DATA_PLANE_INPUTS
from ..settings import Settings
from .bounded_call import close_member
from .client_settings import Membership, fetch_properties, log, member_properties, reader_properties, shown_address
from .kafka_records import StandIn
from .pulse import PATIENCE_S, Pulse
from .signed_gate import SignedGate
from .slots import slot_taken
from .unreadable import Unreadable

TIMEOUT_S = 10.0
MEMBER_MEMORY_BYTES = 1024 * 1024
MEMORY_SHARES = {"models": 1 / 16, "predictions": 11 / 16, "labels": 4 / 16}

Rebalanced = Callable[[set[int]], None]


class Fetched(NamedTuple):
    """What a reader got of one partition; `end_offset` is where its end was seen after the last message, None if it was not.

    `letters`: what becomes of records that are not readable, in whose place `messages` have something empty.
    """

    messages: list[Any]
    end_offset: int | None
    letters: Sequence[DeadLetter] = ()


def watermarks(settings: Settings, consumer: Consumer, part: TopicPartition) -> tuple[int, int]:
    """Return the earliest offset of a partition and the next one; raises BrokerUnavailable."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        reason = "no answer"
        try:
            found = consumer.get_watermark_offsets(part, timeout=TIMEOUT_S)
            if found is not None:
                return found[0], found[1]
        except KafkaException as problem:
            reason = problem.args[0].str()
        if time.monotonic() > deadline:
            where = f"{part.topic}/{part.partition}, broker {shown_address(settings)}"
            raise BrokerUnavailable(f"topic must tell its offsets within {TIMEOUT_S:g} s, got: {reason} ({where})")
        time.sleep(0.05)
        # A broker that has just started may have told the client that there is no such topic; left alone it asks again in minutes.
        with suppress(KafkaException):
            consumer.list_topics(part.topic, timeout=TIMEOUT_S)


def by_partition(messages: list[Any]) -> dict[int, list[Any]]:
    """Return messages by partition, in their order."""
    partitions: list[Any] = list(map(Message.partition, messages))
    if partitions.count(partitions[0]) == len(messages):
        return {partitions[0]: messages}
    groups: dict[int, list[Any]] = {partition: [] for partition in set(partitions)}
    for partition, message in zip(partitions, messages, strict=True):
        groups[partition].append(message)
    return groups


def lost(settings: Settings, what: str) -> BrokerUnavailable:
    """Return the error that asks for new clients."""
    return BrokerUnavailable(f"broker must answer within {PATIENCE_S:g} s, got no answer ({what}, {shown_address(settings)})")


class Group:
    """A static member of the data plane's group; the callbacks of its rebalances run inside `poll`."""

    def __init__(self, settings: Settings, on_assign: Rebalanced, on_revoke: Rebalanced, on_lost: Rebalanced) -> None:
        config = settings.data_plane
        self._settings = settings
        self._topics = {settings.topic(kind): kind for kind in DATA_PLANE_INPUTS}
        member = Membership(
            settings.monitor_group, config.slot, config.session_timeout_s, config.max_poll_interval_s, MEMBER_MEMORY_BYTES
        )
        self._consumer = Consumer({**member_properties(settings, member), "queued.min.messages": 1}, logger=log)
        self._pulse = Pulse(self._consumer, settings.topic("models"))
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._on_lost = on_lost

    def join(self) -> None:
        """Check the topics and subscribe; raises BrokerUnavailable, TopicMismatch."""
        try:
            known = self._consumer.list_topics(timeout=TIMEOUT_S).topics
        except KafkaException as problem:
            raise self._unavailable(problem) from None
        # Each output goes to the partition number of its input.
        names = [*self._topics, *map(self._settings.topic, ("state", "drift", "metrics", *(f"{k}.dlq" for k in DATA_PLANE_INPUTS)))]
        counts = {name: len(known[name].partitions) if name in known else 0 for name in names}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise TopicMismatch(f"topics must be there with one partition count, got {counts} (run `driftloop init`)")
        self._consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._was_lost)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Stay a member and run the callbacks; raises SlotTaken once another process has the slot."""
        for message in self._consumer.consume(10, timeout_s):
            error = message.error()
            if error is None:
                continue
            if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
                group = self._settings.monitor_group
                raise slot_taken("monitor", self._settings.data_plane.slot, group, error.str())
            log.warning("the group goes on after: %s", error.str())

    def check(self) -> None:
        """Raise BrokerUnavailable if the client, which has no partitions and so no heartbeats that could fail, lost the cluster."""
        if self._pulse.is_lost():
            raise lost(self._settings, "member")

    def committed(self, partitions: Iterable[int]) -> dict[int, dict[str, tuple[int, str | None]]]:
        """Return offset and metadata by partition and kind, waiting out a predecessor's pending offsets; kinds without are left out."""
        asked = [TopicPartition(topic, partition) for partition in partitions for topic in self._topics]
        deadline = time.monotonic() + 2 * self._settings.data_plane.transaction_timeout_s + TIMEOUT_S
        while True:
            try:
                found = self._consumer.committed(asked, timeout=TIMEOUT_S)
                wrong = next((part.error for part in found if part.error is not None), None)
            except KafkaException as problem:
                wrong = problem.args[0]
            if wrong is None:
                break
            if time.monotonic() > deadline:
                raise self._unavailable(KafkaException(wrong))
            time.sleep(0.05)
        offsets: dict[int, dict[str, tuple[int, str | None]]] = {part.partition: {} for part in found}
        for part in found:
            if part.offset != OFFSET_INVALID:
                offsets[part.partition][self._topics[part.topic]] = part.offset, part.metadata
        return offsets

    def metadata(self) -> Any:
        """Return the member's generation, for send_offsets_to_transaction."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Go without leaving: a static member's partitions wait for it until its session times out."""
        close_member(self._consumer)

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        owned = {part.partition for part in parts}
        if any(sum(part.partition == partition for part in parts) != len(self._topics) for partition in owned):
            log.error("the group gave topics apart: %s", parts)
        consumer.assign(parts)
        consumer.pause(parts)
        self._pulse.beat()
        self._on_assign(owned)

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._on_revoke({part.partition for part in parts})
        consumer.unassign()

    def _was_lost(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        self._on_lost({part.partition for part in parts})
        consumer.unassign()

    def _unavailable(self, problem: KafkaException) -> BrokerUnavailable:
        return BrokerUnavailable(f"group must be told, got: {problem.args[0].str()} (broker {shown_address(self._settings)})")


class Readers:
    """What fetches the partitions owned, one consumer for each input topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        memory_bytes = settings.data_plane.fetch_memory_bytes
        self._consumers = {}
        for kind in DATA_PLANE_INPUTS:
            properties = reader_properties(settings, fetch_properties(int(memory_bytes * MEMORY_SHARES[kind]), wait_ms=20))
            self._consumers[kind] = Consumer({**properties, "auto.offset.reset": "error"}, logger=log)
        self._gate = SignedGate(settings)
        self._pulses = {kind: Pulse(consumer, settings.topic(kind)) for kind, consumer in self._consumers.items()}
        self._unreadable = Unreadable(settings)
        self._parts: set[int] = set()
        self._paused: set[tuple[str, int]] = set()

    def first_offsets(self, partition: int) -> dict[str, int]:
        """Return the earliest offset of each topic; raises BrokerUnavailable."""
        found = {}
        for kind, consumer in self._consumers.items():
            found[kind] = watermarks(self._settings, consumer, TopicPartition(self._settings.topic(kind), partition))[0]
        return found

    def add(self, partition: int, offsets: Mapping[str, int]) -> None:
        """Begin to fetch a partition from the offsets given."""
        self._parts.add(partition)
        for kind, consumer in self._consumers.items():
            consumer.incremental_assign([TopicPartition(self._settings.topic(kind), partition, offsets[kind])])

    def remove(self, partition: int) -> None:
        """Stop fetching a partition and drop what is queued of it."""
        if partition not in self._parts:
            return
        self._parts.discard(partition)
        for kind, consumer in self._consumers.items():
            # A pause outlives the assignment.
            self.hold(kind, partition, paused=False)
            consumer.incremental_unassign([TopicPartition(self._settings.topic(kind), partition)])

    def read(self, kind: str, limit: int, timeout_s: float) -> dict[int, Fetched]:
        """Return up to `limit` messages by partition; waits the whole time unless there are as many.

        Raises BrokerUnavailable where the client of this topic lost the cluster, SnapshotInvalid where the offsets are gone.
        """
        messages: list[Any] = self._consumers[kind].consume(limit, timeout_s)
        pulse = self._pulses[kind]
        if not messages:
            if pulse.is_lost():
                raise lost(self._settings, f"reader of {kind}")
            return {}
        pulse.beat()
        fetched = {part: self._fetched(kind, found) for part, found in by_partition(messages).items() if part in self._parts}
        if kind != "models" or self._gate.is_open:
            return fetched
        return {
            part: found._replace(messages=[one for one in found.messages if self._passes(one)]) for part, found in fetched.items()
        }

    def hold(self, kind: str, partition: int, *, paused: bool) -> None:
        """Stop or go on fetching one topic of a partition that runs far ahead of the others."""
        if paused == ((kind, partition) in self._paused):
            return
        part = [TopicPartition(self._settings.topic(kind), partition)]
        if paused:
            self._consumers[kind].pause(part)
            self._paused.add((kind, partition))
        else:
            self._consumers[kind].resume(part)
            self._paused.discard((kind, partition))

    def close(self) -> None:
        """Let go of every partition."""
        for consumer in self._consumers.values():
            consumer.close()

    def _passes(self, message: Any) -> bool:
        return isinstance(message, StandIn) or self._gate.passes(message.topic(), message.key(), message.value(), message.headers())

    def _fetched(self, kind: str, messages: list[Any]) -> Fetched:
        if not any(map(Message.error, messages)):
            return Fetched(messages, None)
        errors = [(at, error) for at, error in enumerate([message.error() for message in messages]) if error is not None]
        end_offset, passed_over = None, None
        for at, error in errors:
            if error.code() == KafkaError._PARTITION_EOF:
                end_offset = messages[at].offset() if at == len(messages) - 1 else None
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise SnapshotInvalid(f"offsets to go on from must be in the topic: {error.str()}")
            else:
                log.warning("reading goes on after: %s", error.str())
                passed_over = passed_over or self._unreadable.stretch(messages[at])
        sound = [message for message in messages if message.error() is None]
        if passed_over is None:
            return Fetched(sound, end_offset)
        log.error("records are passed over: %s", passed_over.letter().message)
        where = TopicPartition(passed_over.topic, passed_over.partition, passed_over.stop)
        self._consumers[kind].seek(where)
        # What was fetched from behind the batch, if anything, comes again.
        kept = [message for message in sound if message.offset() < passed_over.first]
        return Fetched([*kept, StandIn(passed_over.stop - 1)], None, [passed_over.letter()])
