"""The monitor's state on the compacted state topic: parts written with the outputs, a manifest last, read back on assignment.

A part that is larger than the topic takes is written in pieces, each a part of its own for the manifest.

The manifest stays small however many parts live: it holds their number and one 64-bit set hash (the XOR of each part's hash of name and
bytes), kept up to date part by part, so a missing, stale or foreign part shows on restore. A pointer in the metadata of the committed
offsets names the manifest's `seq`; offsets and pointer are committed atomically, so state and offsets always belong together.

The join buffer is restored from its segments among the parts, not by reading the source topics again from the oldest pending
prediction: that one may lie days back and beyond retention, and the read would be of whole events, most of them long joined.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import xxhash
from confluent_kafka import Consumer, KafkaError, TopicPartition

from ..schemas.errors import BrokerUnavailable, SnapshotInvalid
from ..settings import Settings
from .client_settings import log, reader_properties
from .plane_inputs import watermarks

MANIFEST_KEY = b"manifest"
PART_PREFIX = b"p/"
PIECE = "\x00"
READ_RECORDS = 2_000


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last record of a checkpoint: offsets by topic kind are the next to process."""

    v: Literal[1] = 1
    seq: int
    offsets: dict[str, int]
    parts: int
    digest: int


class Pointer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a committed offset. `live`: a process works from there on; one that ends in peace takes that back."""

    v: Literal[1]
    seq: int
    live: bool = False


@dataclass(slots=True)
class Ledger:
    """The hash of every live part of one partition, and their set hash."""

    hashes: dict[str, int] = field(default_factory=dict)
    digest: int = 0

    def note(self, name: str, data: bytes | None) -> None:
        """Take a part's new bytes, or its end, into account."""
        self.digest ^= self.hashes.pop(name, 0)
        if data is not None:
            self.hashes[name] = part_hash(name, data)
            self.digest ^= self.hashes[name]

    def manifest(self, seq: int, offsets: Mapping[str, int]) -> Manifest:
        """Return the manifest of what was noted."""
        return Manifest(seq=seq, offsets=dict(offsets), parts=len(self.hashes), digest=self.digest)


@dataclass(slots=True)
class StateLog:
    """What the state topic says about one partition: last value by key."""

    parts: dict[str, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Take one record of the log."""
        if key == MANIFEST_KEY:
            self.manifest = None if value is None else decode_manifest(value)
        elif key is not None and key.startswith(PART_PREFIX):
            name = key[len(PART_PREFIX) :].decode()
            if value is None:
                self.parts.pop(name, None)
            else:
                self.parts[name] = value

    def whole(self) -> dict[str, bytes]:
        """Return the parts, those in pieces put together."""
        whole: dict[str, bytes] = {}
        for name in sorted(self.parts, key=_piece):
            stem = _piece(name)[0]
            whole[stem] = whole.get(stem, b"") + self.parts[name]
        return whole

    def check(self, seq: int, offsets: Mapping[str, int], where: str) -> Ledger:
        """Return the ledger of the parts; raises SnapshotInvalid unless they are exactly what the pointer means."""
        if self.manifest is None or self.manifest.seq != seq:
            found = None if self.manifest is None else self.manifest.seq
            raise SnapshotInvalid(f"state must have the manifest {seq} that the committed offsets name, got {found} ({where})")
        if self.manifest.offsets != dict(offsets):
            raise SnapshotInvalid(f"state must be of the offsets {dict(offsets)}, got {self.manifest.offsets} ({where})")
        ledger = Ledger()
        for name, data in self.parts.items():
            ledger.note(name, data)
        if (len(ledger.hashes), ledger.digest) != (self.manifest.parts, self.manifest.digest):
            raise SnapshotInvalid(
                f"state must hold the {self.manifest.parts} parts of manifest {seq}, got {len(ledger.hashes)} or others ({where})"
            )
        return ledger


def chunked(name: str, data: bytes | None, limit_bytes: int, known: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield a part in pieces of bounded size by name, then the ends of pieces `known` that it no longer has."""
    size_bytes = -1 if data is None else len(data)
    count = 0 if data is None else max(1, -(-size_bytes // limit_bytes))
    for number in range(count):
        assert data is not None
        yield _piece_name(name, number), data if count == 1 else data[number * limit_bytes : (number + 1) * limit_bytes]
    if data is None:
        yield name, None
    number = max(1, count)
    while _piece_name(name, number) in known:
        yield _piece_name(name, number), None
        number += 1


def _piece_name(name: str, number: int) -> str:
    return name if number == 0 else f"{name}{PIECE}{number}"


def _piece(name: str) -> tuple[str, int]:
    stem, _, number = name.partition(PIECE)
    return stem, int(number) if number else 0


def part_hash(name: str, data: bytes) -> int:
    """Return the 64-bit hash of a part."""
    return xxhash.xxh3_64_intdigest(data, seed=xxhash.xxh3_64_intdigest(name.encode()))


def part_key(name: str) -> bytes:
    """Return the key of a part's record."""
    return PART_PREFIX + name.encode()


def decode_manifest(value: bytes) -> Manifest:
    """Return the manifest; raises SnapshotInvalid."""
    try:
        return msgspec.json.decode(value, type=Manifest)
    except msgspec.DecodeError as problem:
        raise SnapshotInvalid(f"manifest must be of version 1: {problem}") from problem


def encode_pointer(seq: int, *, live: bool = False) -> str:
    """Return the metadata that goes with committed offsets."""
    return msgspec.json.encode(Pointer(1, seq, live)).decode()


def decode_pointer(metadata: str | None, where: str) -> int:
    """Return the sequence number; raises SnapshotInvalid for offsets that someone else committed."""
    try:
        return msgspec.json.decode(metadata if metadata is not None else "", type=Pointer).seq
    except msgspec.DecodeError:
        raise SnapshotInvalid(f"committed offsets must carry driftloop's pointer, got {metadata!r} ({where})") from None


def is_live(metadata: str | None) -> bool:
    """Return True if a process worked on from the committed offsets and did not take that back: it ended otherwise than in peace."""
    try:
        return metadata is not None and msgspec.json.decode(metadata, type=Pointer).live
    except msgspec.DecodeError:
        return False


def read_state(
    settings: Settings, pointers: Mapping[int, int | None], keep_alive: Callable[[], bool], timeout_s: float
) -> dict[int, StateLog] | None:
    """Return what the state topic says by partition; None once `keep_alive`, called again and again, returns False.

    Reads up to the read-uncommitted high watermark, or the manifest that the pointer names: the markers of a commit reach the offsets
    and the state apart from each other. Raises BrokerUnavailable where that takes longer than the time given without progress.
    """
    topic = settings.topic("state")
    targets = _high_watermarks(settings, topic, pointers)
    logs = {partition: StateLog() for partition in pointers}
    consumer = Consumer(reader_properties(settings), logger=log)
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in pointers])
        waiting, deadline = set(pointers), time.monotonic() + timeout_s
        while waiting:
            messages = consumer.consume(READ_RECORDS, 0.02)
            if any(message.error() is None for message in messages):
                deadline = time.monotonic() + timeout_s
            waiting -= _apply(messages, logs, targets)
            waiting -= {p for p in waiting if pointers[p] is not None and _seq(logs[p]) == pointers[p]}
            if not keep_alive():
                return None
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"state must be readable to its end, got no progress ({topic}, partitions {sorted(waiting)})"
                )
    finally:
        consumer.close()
    return logs


def _seq(state: StateLog) -> int | None:
    return None if state.manifest is None else state.manifest.seq


def _apply(messages: Iterable[Any], logs: Mapping[int, StateLog], targets: Mapping[int, int]) -> set[int]:
    ended = set()
    for message in messages:
        error = message.error()
        if error is None:
            logs[message.partition()].add(message.key(), message.value())
        elif error.code() != KafkaError._PARTITION_EOF:
            log.warning("restore goes on after: %s", error.str())
        elif message.offset() >= targets[message.partition()]:
            ended.add(message.partition())
    return ended


def _high_watermarks(settings: Settings, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    properties = {**reader_properties(settings), "isolation.level": "read_uncommitted"}
    consumer = Consumer(properties, logger=log)
    try:
        return {partition: watermarks(settings, consumer, TopicPartition(topic, partition))[1] for partition in partitions}
    finally:
        consumer.close()
