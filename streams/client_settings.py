"""librdkafka properties for every client: the user's `[kafka]` table, our defaults below it, our rules above it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..schemas.errors import SettingsInvalid
from ..settings import Settings

MIB = 1024 * 1024
READER_MEMORY_BYTES = 64 * MIB
INSECURE = "insecure"
# librdkafka's highest: it measures before compression, as the broker does not.
MAX_MESSAGE_BYTES = 1_000_000_000
QUIET_S = 60.0
MAX_TOLD = 1_000
CLIENT_MESSAGE = "%s [%s] %s"  # how confluent-kafka hands on what librdkafka logs: facility, client, text
# What a broker just started makes every client say; and one `[kafka]` table serves consumers and producers.
HARMLESS = (
    "Coordinator load in progress",
    "will be ignored by this producer instance",
    "will be ignored by this consumer instance",
)

log = logging.getLogger("driftloop.kafka")


class OncePerMinute(logging.Filter):
    """A filter that lets a message through once a minute, whatever its numbers: librdkafka repeats itself at each attempt to connect.

    What we say ourselves of the course of things always passes: two takeovers differ in nothing but numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a message told within the last minute, and for one that asks for nothing."""
        if record.levelno <= logging.INFO and record.msg != CLIENT_MESSAGE and record.name.startswith("driftloop"):
            return True
        text = re.sub(r"\d+", "", record.getMessage())
        if any(part in text for part in HARMLESS):
            return False
        if record.created - self._told.get(text, 0.0) < QUIET_S:
            return False
        if len(self._told) > MAX_TOLD:
            self._told.clear()
        self._told[text] = record.created
        return True


log.addFilter(OncePerMinute())

# The exactly-once protocol and the co-partitioning of topics rest on these; another value would break them without a word.
OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "isolation.level",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "session.timeout.ms",
        "transaction.timeout.ms",
        "transactional.id",
    }
)
UNSAFE = {"enable.ssl.certificate.verification": ("false", "0"), "ssl.endpoint.identification.algorithm": ("none",)}


@dataclass(frozen=True, slots=True)
class Membership:
    """One member of a consumer group; `slot` is the same across restarts (static membership)."""

    group: str
    slot: str
    session_timeout_s: float
    max_poll_interval_s: float = 300.0
    memory_bytes: int = READER_MEMORY_BYTES


def base_properties(settings: Settings) -> dict[str, Any]:
    """Return what every client gets: address, security and whatever else the user set.

    Raises SettingsInvalid with every property that is ours to set, and where certificate checks are off without `insecure = true`.
    """
    given = dict(settings.kafka)
    insecure = given.pop(INSECURE, "false").lower() in ("true", "1")
    problems = [f"kafka.{name} must be left out: driftloop sets it" for name in sorted(OURS & given.keys())]
    for name, values in UNSAFE.items():
        if given.get(name, "").lower() not in values:
            continue
        if insecure:
            log.warning("kafka.%s = %s: the broker's identity is not checked (insecure = true)", name, given[name])
        else:
            problems.append(
                f"kafka.{name} must keep its check of the broker's identity unless kafka.insecure = true, got {given[name]!r}"
            )
    if problems:
        raise SettingsInvalid(problems)
    # librdkafka takes a password in an address for a part of the host's name, and writes it into errors and logs.
    return {"client.id": "driftloop", **given, "bootstrap.servers": shown_address(settings)}


def shown_address(settings: Settings) -> str:
    """Return the broker's address without a user and password that someone wrote into it."""
    return ",".join(part.rpartition("@")[2].strip() for part in settings.bootstrap_servers.split(","))


def fetch_properties(memory_bytes: int, wait_ms: int = 100) -> dict[str, Any]:
    """Return fetch sizes bounded by memory; librdkafka's defaults cost a factor of 2.8 at 700-byte events."""
    fetch_bytes = max(MIB, min(64 * MIB, memory_bytes // 4))
    return {
        "fetch.max.bytes": fetch_bytes,
        # Larger ones have left the cache before they are read: 16 MiB cost 7 % of the data plane's rate.
        "fetch.message.max.bytes": min(2 * MIB, fetch_bytes),
        "queued.max.messages.kbytes": max(1024, memory_bytes // 1024),
        "queued.min.messages": 400_000,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": wait_ms,
    }


def reader_properties(settings: Settings, fetch: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the properties of a consumer that assigns itself partitions and sees only what is committed.

    What the user set goes before the fetch sizes given.
    """
    return {
        **(fetch_properties(READER_MEMORY_BYTES) if fetch is None else fetch),
        **base_properties(settings),
        # Never joined: the client insists on a name.
        "group.id": "driftloop-reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }


def member_properties(settings: Settings, member: Membership) -> dict[str, Any]:
    """Return the properties of a group member whose offsets are committed by transactions alone.

    `range` gives one member the same partition numbers of every topic.
    """
    return {
        **fetch_properties(member.memory_bytes),
        **base_properties(settings),
        "group.id": member.group,
        "group.instance.id": f"{member.group}-{member.slot}",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": int(member.session_timeout_s * 1000),
        "heartbeat.interval.ms": int(heartbeat_interval_s(member.session_timeout_s) * 1000),
        "max.poll.interval.ms": int(max(member.max_poll_interval_s, member.session_timeout_s) * 1000),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
    }


def heartbeat_interval_s(session_timeout_s: float) -> float:
    """Return how often a group member tells that it lives."""
    return min(3.0, session_timeout_s / 3)


def producer_properties(settings: Settings) -> dict[str, Any]:
    """Return the properties of a producer that never reorders or doubles, with the partitioner of Java clients."""
    return {
        "compression.type": "lz4",
        "linger.ms": 5,
        **base_properties(settings),
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
    }


def transactional_properties(settings: Settings, transactional_id: str, timeout_s: float) -> dict[str, Any]:
    """Return the properties of a transactional producer; back-to-back transactions wait for its short retry back-off."""
    return {
        "batch.size": MIB,
        "queue.buffering.max.messages": 500_000,
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 200,
        **producer_properties(settings),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": int(timeout_s * 1000),
    }
