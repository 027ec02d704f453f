"""Who may do what on the broker: one table of the rights that each role needs, and the commands of kafka-acls that grant them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..schemas.topics import KINDS
from ..settings import Settings
from .faust_settings import group_of

Operation = Literal["Read", "Write"]
READER_GROUP = "driftloop-reader"


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of process: topics it reads and writes by kind, and whether it is a group of its own and writes in transactions.

    `looks_at`: groups whose offsets or members it asks for. Every role of the service writes alerts: of troubles of its own.
    """

    name: str
    what: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    group: Literal["", "monitor", "control", "worker"] = ""
    transactional: bool = False
    looks_at: tuple[Literal["monitor", "control", "worker"], ...] = ()


DEAD_LETTERS = ("predictions.dlq", "labels.dlq", "models.dlq")
ROLES: tuple[Role, ...] = (
    Role("app", "programs that predict and label, through the SDK or any producer", writes=("predictions", "labels", "resources")),
    Role("server", "serving processes with a ModelWatcher", reads=("models",)),
    Role(
        "monitor",
        "the data plane",
        reads=("models", "predictions", "labels", "state", "alerts"),
        writes=("drift", "metrics", "state", "alerts", *DEAD_LETTERS),
        group="monitor",
        transactional=True,
    ),
    Role(
        "control",
        "the control plane, with the watchdog that looks at the others",
        reads=("drift", "jobs", "job-events", "alerts", "models", "predictions", "labels", "metrics", *DEAD_LETTERS, "jobs.dlq"),
        writes=("jobs", "alerts", "jobs.dlq"),
        group="control",
        looks_at=("monitor",),
    ),
    Role(
        "worker",
        "the worker, which publishes models and puts jobs off",
        reads=("jobs", "job-events", "models", "predictions", "labels", "drift", "alerts"),
        writes=("job-events", "models", "jobs", "alerts", "jobs.dlq"),
        group="worker",
        transactional=True,
    ),
    Role(
        "operator",
        "people and scripts with the command line",
        reads=tuple(KINDS),
        writes=("models", "jobs", "alerts"),
        looks_at=("monitor", "control", "worker"),
    ),
)


def acl_lines(settings: Settings) -> Iterator[str]:
    """Yield the commands that give each role its rights; principals are `User:driftloop-<role>`, to be replaced by what there is."""
    for role in ROLES:
        yield f"# {role.name}: {role.what}"
        for operation, kinds in (("Read", role.reads), ("Write", role.writes)):
            for kind in kinds:
                yield _line(settings, role, (operation, "Describe"), ("--topic", settings.topic(kind)))
        yield from _group_lines(settings, role)
    yield "# operator: `driftloop init` makes the topics"
    own = ("--topic", settings.topics.prefix, "--resource-pattern-type", "prefixed")
    yield _line(settings, ROLES[-1], ("Create", "Describe", "DescribeConfigs"), own)


def _group_lines(settings: Settings, role: Role) -> Iterator[str]:
    groups = {"monitor": settings.monitor_group, "control": group_of(settings), "worker": settings.worker_group}
    if role.reads:
        yield _line(settings, role, ("Read",), ("--group", READER_GROUP))
    if role.group:
        yield _line(settings, role, ("Read", "Describe"), ("--group", groups[role.group]))
    for group in role.looks_at:
        yield _line(settings, role, ("Describe",), ("--group", groups[group]))
    if role.transactional:
        # The slot follows: one transactional id a process.
        prefix = f"{groups[role.group]}-"
        yield _line(settings, role, ("Write", "Describe"), ("--transactional-id", prefix, "--resource-pattern-type", "prefixed"))


def _line(settings: Settings, role: Role, operations: tuple[str, ...], resource: tuple[str, ...]) -> str:
    parts = [
        "kafka-acls",
        "--bootstrap-server",
        settings.bootstrap_servers,
        "--add",
        "--allow-principal",
        f"User:driftloop-{role.name}",
    ]
    for operation in operations:
        parts += ["--operation", operation]
    return shlex.join([*parts, *resource])
