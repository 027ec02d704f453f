"""Read topics for people and scripts: one plain object for every record, all of a topic at once, jobs folded from their events."""

from __future__ import annotations

import base64
import difflib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from ..schemas import codecs
from ..schemas.errors import NotFound
from ..schemas.events import Event, JobCancelled, JobFailed, JobFinished, JobProgressed, JobRequested, JobStarted, Outcome
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .fold_guard import FoldGuard
from .transport import Start, Transport

POLL_S = 0.2
POLL_RECORDS = 500
log = logging.getLogger("driftloop.watching")


@dataclass(frozen=True, slots=True)
class Watch:
    """What to watch: a topic kind such as drift, from where, how many records, for how long (None: without end)."""

    kind: str
    from_beginning: bool = False
    count: int | None = None
    timeout_s: float | None = None


def topic_kind(name: str, settings: Settings) -> str:
    """Return the kind of a topic given by kind or full name; raises NotFound with the nearest name."""
    kind = name.removeprefix(settings.topics.prefix)
    if kind in KINDS:
        return kind
    close = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; topics are {', '.join(KINDS)}"
    raise NotFound(f"topic must be one of driftloop's, got {name!r}{hint}")


def watch(transport: Transport, settings: Settings, what: Watch) -> Iterator[dict[str, Any]]:
    """Yield one plain object per record, with `_partition` and `_offset`; raises TimeoutError if `count` is not reached in time."""
    start: Start = "earliest" if what.from_beginning else "latest"
    reader = transport.reader([settings.topic(what.kind)], start)
    deadline = None if what.timeout_s is None else time.monotonic() + what.timeout_s
    seen = 0
    try:
        while what.count is None or seen < what.count:
            left = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            if left <= 0:
                break
            limit = POLL_RECORDS if what.count is None else min(POLL_RECORDS, what.count - seen)
            for record in reader.poll(limit, left):
                seen += 1
                yield plain(record, what.kind)
    finally:
        reader.close()
    if what.count is not None and seen < what.count:
        raise TimeoutError(f"{what.count} records must come within {what.timeout_s:g} s, got {seen} ({settings.topic(what.kind)})")


def plain(record: Record, kind: str) -> dict[str, Any]:
    """Return a record as one plain object: the event's fields where it is one, else its bytes as text or base64."""
    where = {"_partition": record.partition, "_offset": record.offset}
    carries = KINDS[kind].carries
    if carries is None:
        headers = {name: _text(value) for name, value in record.headers}
        return {"key": _text(record.key), "value": _text(record.value), "headers": headers} | where
    try:
        event = codecs.decode(record.value, carries, f"{record.topic}[{record.partition}]@{record.offset}")
        told: dict[str, Any] = msgspec.to_builtins(event)
    except Exception as problem:  # noqa: BLE001 - whatever a record holds, the next one is shown
        return {"value": _text(record.value), "_error": str(problem)} | where
    return told | where


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def read_events(transport: Transport, topics: Sequence[str], carries: Any) -> Iterator[tuple[Record, Any]]:
    """Yield every event committed so far on the topics, oldest first within a partition; what is no event is passed over."""
    reader, guard = transport.reader(topics, "earliest"), FoldGuard(log)
    try:
        while not reader.at_end():
            for record in reader.poll(POLL_RECORDS, POLL_S):
                found: list[Any] = []
                guard.take(record, carries, found.append)
                yield from ((record, event) for event in found)
    finally:
        reader.close()


class JobView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A job as its events tell it; `state` is requested, running, promoted, proposed, registered, rejected, failed or cancelled."""

    job_id: str
    model: str
    recipe: str = ""
    state: str = "requested"
    requested_by: str = ""
    episode_id: str | None = None
    attempt: int = 0
    step: str = ""
    fraction: float = 0.0
    message: str = ""
    scalars: dict[str, float] = msgspec.field(default_factory=dict)
    at: int | None = None
    duration_s: float | None = None
    version: int | None = None
    arm: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Return True once nothing more will happen."""
        return self.state in (*get_args(Outcome), "failed", "cancelled")

    def take(self, event: Event) -> None:
        """Take in one event of this job."""
        if isinstance(event, JobRequested):
            self.recipe, self.requested_by, self.episode_id = event.recipe, event.requested_by, event.episode_id
        elif isinstance(event, JobFinished):
            self.state, self.reasons, self.duration_s = event.outcome, event.reasons, event.duration_s
            self.recipe, self.version, self.arm, self.fraction = event.recipe, event.version, event.arm, 1.0
        elif isinstance(event, JobFailed):
            self.state, self.reasons, self.duration_s = "failed", (f"{event.cause}: {event.message}",), event.duration_s
            self.recipe, self.attempt = event.recipe, event.attempt
        elif self.ended:
            return
        elif isinstance(event, JobCancelled):
            self.state = "cancelled"
        elif isinstance(event, JobStarted):
            self.state, self.recipe, self.attempt = "running", event.recipe, event.attempt
        elif isinstance(event, JobProgressed):
            self.step, self.fraction, self.message = event.step, event.fraction, event.message
            self.scalars, self.at = event.scalars, event.at


class Jobs:
    """The events of the jobs and job-events topics, folded into one view a job; the two topics may come in any interleaving."""

    def __init__(self) -> None:
        self.views: dict[str, JobView] = {}

    def take(self, event: Any) -> JobView:
        """Take in one job command or event and return its job."""
        view = self.views.setdefault(event.job_id, JobView(job_id=event.job_id, model=event.model))
        view.take(event)
        return view
