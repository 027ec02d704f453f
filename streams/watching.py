"""Read topics for people and scripts: one plain object for every record, all of a topic at once, jobs folded from their events."""

from __future__ import annotations

import base64
import difflib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..schemas import codecs
from ..schemas.errors import NotFound
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
