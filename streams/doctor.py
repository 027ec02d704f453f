"""Look at all that driftloop needs here: machine, packages, settings, broker, topics, store. Each finding says what to do."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import msgspec

from ..schemas.errors import BrokerUnavailable, DriftloopError
from ..schemas.topics import KINDS
from ..settings import Settings
from .worker_ready import WORKER_PACKAGES, store_problem

Verdict = Literal["ok", "warn", "fail"]
ROLES = ("monitor", "control", "worker")
LOW_DISK_BYTES = 1_000_000_000
BROKER_TIMEOUT_S = 5.0
STORE_CURE = "set store.url to a place that this user may write, and install the fsspec driver of its scheme (s3fs for s3://)"


class Finding(msgspec.Struct, frozen=True):
    """The result of one check; `exit_code` is what the command ends with where it is the first that failed."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    exit_code: int = 0


def examine(settings: Settings) -> list[Finding]:
    """Return every finding; a check that cannot run says so and the others go on."""
    findings = [*_machine(), *_packages(), _store(settings)]
    broker = _guarded("broker", lambda: _broker(settings))
    findings.append(broker)
    if broker.verdict == "ok":
        topics = _guarded("topics", lambda: _topics(settings))
        findings.append(topics)
        if topics.verdict == "ok":
            findings.append(_guarded("state", lambda: _state(settings)))
            findings += [_guarded(role, partial(_role, settings, role)) for role in ROLES]
            findings.append(_guarded("troubles", lambda: _troubles(settings)))
    return [msgspec.structs.replace(finding, found=settings.scrubbed(finding.found)) for finding in findings]


def _guarded(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except DriftloopError as problem:
        return Finding(check, "fail", str(problem), "", problem.exit_code)


def _machine() -> Iterator[Finding]:
    from .broker_libs import prerequisites

    version = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding("python", "fail" if old else "ok", version, "Python 3.11 or newer" if old else "", int(old))
    missing = prerequisites()
    for sentence in missing:
        yield Finding("local broker", "warn", sentence, "only needed for a local broker")
    if not missing:
        yield Finding("local broker", "ok", "java and Kafka's jars or Maven are there")
    kcat = shutil.which("kcat")
    yield Finding("kcat", "ok", kcat) if kcat else Finding("kcat", "warn", "not there", "optional: a Kafka client for the shell")


def _packages() -> Iterator[Finding]:
    missing = [name for name in WORKER_PACKAGES if importlib.util.find_spec(name) is None]
    advice = 'pip install "driftloop[worker]" where repairs run'
    yield (
        Finding("worker packages", "warn", f"missing: {', '.join(missing)}", advice)
        if missing
        else Finding("worker packages", "ok", ", ".join(WORKER_PACKAGES))
    )


def _store(settings: Settings) -> Finding:
    import fsspec

    url = settings.store.shown
    why = store_problem(settings.store.url)
    if why is not None:
        return Finding("store", "fail", f"{url} must be writable, got {settings.scrubbed(why)}", STORE_CURE, 1)
    system, path = fsspec.core.url_to_fs(settings.store.url)
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        free_bytes = shutil.disk_usage(path).free
        if free_bytes < LOW_DISK_BYTES:
            return Finding("store", "warn", f"{url}: {free_bytes} bytes free", "make room")
    return Finding("store", "ok", f"{url} is writable")


def _broker(settings: Settings) -> Finding:
    from .client_settings import shown_address
    from .topics import admin_client, partition_counts

    try:
        partition_counts(settings, admin_client(settings), BROKER_TIMEOUT_S)
    except BrokerUnavailable as problem:
        return Finding("broker", "fail", str(problem), "set kafka.bootstrap.servers, or driftloop broker start", problem.exit_code)
    return Finding("broker", "ok", f"{shown_address(settings)} answers")


def _topics(settings: Settings) -> Finding:
    from .topics import check_topics

    missing = check_topics(settings, BROKER_TIMEOUT_S)
    if missing:
        found = f"{len(missing)} of {len(KINDS)} are not there: {', '.join(missing)}"
        return Finding("topics", "fail", found, "driftloop init", 4)
    return Finding("topics", "ok", f"{len(KINDS)} with prefix {settings.topics.prefix}")


def _role(settings: Settings, role: str) -> Finding:
    """Say whether any process serves a role: without a monitor nothing is watched at all."""
    from .faust_settings import group_of
    from .group_members import group_members
    from .topics import admin_client

    group = {"monitor": settings.monitor_group, "control": group_of(settings), "worker": settings.worker_group}[role]
    members = group_members(settings, admin_client(settings), group, BROKER_TIMEOUT_S)
    if members:
        return Finding(role, "ok", f"{members} of group {group}")
    advice = f"driftloop serve --roles {role}"
    if role == "monitor":
        return Finding(role, "fail", f"nobody serves: group {group} has no member, nothing is watched", advice, 1)
    return Finding(role, "warn", f"nobody serves: group {group} has no member", advice)


def _troubles(settings: Settings) -> Finding:
    from .kafka import KafkaTransport
    from .troubles import TroubleBoard

    board = TroubleBoard(settings, KafkaTransport(settings))
    try:
        board.refresh()
    finally:
        board.close()
    if board.open:
        return Finding("troubles", "fail", "; ".join(alert.summary for alert in board.open.values()), "see the service's log", 1)
    return Finding("troubles", "ok", "none open")


def _state(settings: Settings) -> Finding:
    from .kafka import KafkaTransport

    records = sum(KafkaTransport(settings).end_offsets(settings.topic("state")).values())
    return Finding("state", "ok", f"{records} records" if records else "none yet: no monitor has run")
