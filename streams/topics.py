"""Make driftloop's topics, and check those that are there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from ..schemas.errors import BrokerUnavailable, Conflict, SettingsInvalid, TopicMismatch
from ..schemas.topics import DATA_PLANE_INPUTS, FOREVER_MS, KINDS, TopicKind
from ..settings import Settings
from .client_settings import base_properties, log, shown_address

TIMEOUT_S = 10.0
# A dead letter is its record and the headers that say why: its topic takes more than the input does, whatever the broker's own limit.
INPUT_MESSAGE_BYTES = 1024 * 1024 + 12
LARGE_MESSAGE_BYTES = 2 * 1024 * 1024
STATE_MESSAGE_BYTES = 1024 * 1024
HEADERS_BYTES = 16 * 1024
# How far a producer's clock may be ahead; what Kafka 4 has by default.
AHEAD_MS = 3_600_000
TIMESTAMP_BOUND = "message.timestamp.after.max.ms"
SEGMENT_MS = 30 * 60 * 1000
DEAD_LETTERS = ".dlq"
CHECKED = ("cleanup.policy", "max.message.bytes", "retention.ms")


class AskedAdmin(AdminClient):
    """An admin client that knows what went wrong last: a call that fails says that no broker answered, not that a password is wrong."""

    def __init__(self, settings: Settings) -> None:
        self._told: deque[str] = deque(maxlen=1)
        # No method of this client: one that holds itself keeps its threads until the garbage collector comes by.
        properties: dict[str, Any] = {**base_properties(settings), "log_level": 2, "error_cb": partial(_keep, self._told)}
        super().__init__(properties, logger=log)

    def why(self) -> str | None:
        """Return the newest reason, if any was told."""
        self.poll(0)
        return self._told[0] if self._told else None


def _keep(told: deque[str], error: KafkaError) -> None:
    if error.code() != KafkaError._ALL_BROKERS_DOWN:
        told.append(error.str())


def admin_client(settings: Settings) -> AskedAdmin:
    """Return an admin client; raises SettingsInvalid for a property that librdkafka does not know."""
    try:
        return AskedAdmin(settings)
    except KafkaException as problem:
        raise SettingsInvalid([f"kafka must hold librdkafka properties, got {settings.scrubbed(problem.args[0].str())}"]) from None


def ensure_topics(settings: Settings, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Make every topic that is missing, check the others, and return the names of those made.

    Raises BrokerUnavailable, and TopicMismatch with all topics that are not as configured; then none is made.
    """
    admin = admin_client(settings)
    existing = partition_counts(settings, admin, timeout_s)
    check_topics(settings, timeout_s, existing)
    missing = [kind for kind in KINDS.values() if settings.topic(kind.name) not in existing]
    if not missing:
        return []
    made = _make(settings, admin, missing, timeout_s)
    _wait_until_known(settings, admin, timeout_s)
    if len(made) < len(missing):
        check_topics(settings, timeout_s)
    return sorted(made)


def check_topics(settings: Settings, timeout_s: float = TIMEOUT_S, existing: dict[str, int] | None = None) -> list[str]:
    """Return the names of missing topics; raises TopicMismatch with every topic that has another partition count or clean-up policy."""
    admin = admin_client(settings)
    found = partition_counts(settings, admin, timeout_s) if existing is None else existing
    present = {settings.topic(kind.name): kind for kind in KINDS.values() if settings.topic(kind.name) in found}
    configs = _configs(settings, admin, list(present), timeout_s)
    problems = _wrong_counts(settings, present, found) + _wrong_policies(shown_address(settings), present, configs)
    _warn_of_limits(settings, configs)
    if problems:
        raise TopicMismatch("topics are not as driftloop needs them:\n" + "\n".join(f"  - {line}" for line in problems))
    return [settings.topic(kind.name) for kind in KINDS.values() if settings.topic(kind.name) not in found]


def _wrong_counts(settings: Settings, present: Mapping[str, TopicKind], found: Mapping[str, int]) -> list[str]:
    wanted = settings.topics.partitions
    wrong = {name: found[name] for name, kind in present.items() if kind.co_partitioned and found[name] != wanted}
    if not wrong:
        return []
    cure = "choose another topics.prefix, or delete the topics named (their records are lost) and run `driftloop init`"
    if len(set(wrong.values())) == 1:
        cure = f"set topics.partitions to {next(iter(wrong.values()))} if all topics are to have so many, {cure}"
    return [*(f"{name} must have {wanted} partitions, got {count}" for name, count in wrong.items()), f"cure: {cure}"]


def _wrong_policies(address: str, present: Mapping[str, TopicKind], configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for every topic that would lose records: all of a model share a key, and the state is kept by key for ever."""
    wrong = [(name, kind) for name, kind in present.items() if name in configs and _policy(configs[name]) != {kind.cleanup}]
    lines = [f"{name} must have cleanup.policy={kind.cleanup}, got {configs[name]['cleanup.policy']}" for name, kind in wrong]
    for name, kind in wrong:
        lines.append(
            f"cure: kafka-configs.sh --bootstrap-server {address} --alter --entity-type topics "
            f"--entity-name {name} --add-config cleanup.policy={kind.cleanup}"
        )
    if any(kind.cleanup == "delete" for _, kind in wrong):
        lines.append("compaction keeps one record of a key, and the key is the model's name: what it has removed already is lost")
    return lines


def _policy(config: Mapping[str, str]) -> set[str]:
    return {part.strip() for part in config["cleanup.policy"].split(",") if part.strip()}


def delete_topics(settings: Settings, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Delete every topic of the prefix that is one of driftloop's, records and all, and return their names."""
    admin = admin_client(settings)
    existing = partition_counts(settings, admin, timeout_s)
    names = sorted(settings.topic(kind.name) for kind in KINDS.values() if settings.topic(kind.name) in existing)
    if names:
        for future in admin.delete_topics(names, operation_timeout=timeout_s, request_timeout=timeout_s).values():
            with suppress(KafkaException):
                _result(future, settings, timeout_s)
    return names


def partition_counts(settings: Settings, admin: AskedAdmin, timeout_s: float = TIMEOUT_S) -> dict[str, int]:
    """Return the partition count of every topic of the cluster; raises BrokerUnavailable."""
    try:
        known = admin.list_topics(timeout=timeout_s).topics
    except KafkaException as problem:
        raise unavailable(settings, timeout_s, problem, admin.why()) from None
    return {name: len(topic.partitions) for name, topic in known.items() if topic.error is None}


def unavailable(settings: Settings, timeout_s: float, problem: Exception, why: str | None = None) -> BrokerUnavailable:
    """Return the error that names the broker asked, without credentials; `why` is what the client told besides."""
    reason = problem.args[0].str() if isinstance(problem, KafkaException) else type(problem).__name__
    if why is not None:
        reason = f"{reason}; {why}"
    return BrokerUnavailable(
        f"broker must answer within {timeout_s:g} s, got: {settings.scrubbed(reason)} (kafka.bootstrap.servers = {shown_address(settings)})"
    )


def _make(
    settings: Settings, admin: AdminClient, kinds: Sequence[TopicKind], timeout_s: float, *, with_bounds: bool = True
) -> list[str]:
    asked = admin.create_topics(
        [_new_topic(settings, kind, with_bounds=with_bounds) for kind in kinds],
        operation_timeout=timeout_s,
        request_timeout=timeout_s,
    )
    made, unbounded = [], []
    for kind in kinds:
        name = settings.topic(kind.name)
        try:
            _result(asked[name], settings, timeout_s)
            made.append(name)
        except KafkaException as problem:
            code = problem.args[0].code()
            if code == KafkaError.INVALID_CONFIG and with_bounds:
                # Before Kafka 3.6 no broker knows a bound of time stamps.
                unbounded.append(kind)
            # Another process may make the same topics at this moment.
            elif code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Conflict(f"topic must be made, got {problem.args[0].str()} ({name})") from problem
    return made + (_make(settings, admin, unbounded, timeout_s, with_bounds=False) if unbounded else [])


def _new_topic(settings: Settings, kind: TopicKind, *, with_bounds: bool) -> NewTopic:
    config: dict[str, str] = {"cleanup.policy": kind.cleanup}
    if kind.cleanup == "compact":
        # The state is read whole at each start: compact it early, and let no open segment hold old values for long.
        config |= {
            "min.cleanable.dirty.ratio": "0.3",
            "segment.ms": str(SEGMENT_MS),
            "max.message.bytes": str(LARGE_MESSAGE_BYTES),
        }
    else:
        if kind.name.endswith(DEAD_LETTERS):
            config["max.message.bytes"] = str(LARGE_MESSAGE_BYTES)
        elif kind.name + DEAD_LETTERS in KINDS:
            config["max.message.bytes"] = str(INPUT_MESSAGE_BYTES)
        if with_bounds and kind.name in DATA_PLANE_INPUTS:
            config[TIMESTAMP_BOUND] = str(AHEAD_MS)
        config["retention.ms"] = str(settings.topics.retention_ms if kind.retention_ms is None else kind.retention_ms)
    return NewTopic(
        settings.topic(kind.name),
        num_partitions=settings.topics.partitions,
        replication_factor=settings.topics.replication_factor,
        config=config,
    )


def _warn_of_limits(settings: Settings, configs: dict[str, dict[str, str]]) -> None:
    # Other limits may be meant; the data plane stops with the topic's name where one turns out too small.
    limits = {name: int(config["max.message.bytes"]) for name, config in configs.items()}
    wanted = {settings.topic("state"): STATE_MESSAGE_BYTES}
    wanted |= {name + DEAD_LETTERS: limit + HEADERS_BYTES for name, limit in limits.items() if name + DEAD_LETTERS in limits}
    for name, least in wanted.items():
        if name in limits and limits[name] < least:
            log.warning("max.message.bytes of %s should be at least %d, got %d", name, least, limits[name])
    for kind in KINDS.values():
        name = settings.topic(kind.name)
        if kind.retention_ms == FOREVER_MS and name in configs and configs[name]["retention.ms"] != str(FOREVER_MS):
            log.warning(
                "retention.ms of %s should be -1: after that time versions are lost, got %s", name, configs[name]["retention.ms"]
            )


def _configs(settings: Settings, admin: AdminClient, names: list[str], timeout_s: float) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=timeout_s)
    configs = {}
    for resource, future in asked.items():
        try:
            found = _result(future, settings, timeout_s)
            configs[resource.name] = {name: str(found[name].value) for name in CHECKED}
        except KafkaException as problem:
            # Reading a topic's configuration is a right of its own; without it the counts are what can be checked.
            if problem.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise Conflict(f"topic must show its configuration, got {problem.args[0].str()} ({resource.name})") from problem
            log.warning("configuration of %s is not checked: not authorized to describe it", resource.name)
    return configs


def _wait_until_known(settings: Settings, admin: AskedAdmin, timeout_s: float) -> None:
    # The controller answers before every broker has heard of the new topics.
    wanted = {settings.topic(kind.name) for kind in KINDS.values()}
    deadline = time.monotonic() + timeout_s
    while not wanted <= partition_counts(settings, admin, timeout_s).keys():
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"topics must be known within {timeout_s:g} s after they were made (broker {shown_address(settings)})"
            )
        time.sleep(0.05)


def _result(future: Future[Any], settings: Settings, timeout_s: float) -> Any:
    try:
        return future.result(timeout_s + 1.0)
    except TimeoutError as problem:
        raise unavailable(settings, timeout_s, problem) from None
    except KafkaException as problem:
        if problem.args[0].code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            raise unavailable(settings, timeout_s, problem) from None
        raise
