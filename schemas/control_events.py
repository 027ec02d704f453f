"""Control events from strangers: decoded, then held to bounds, so that whoever folds them can send on what they say.

JSON knows whole numbers of any size and text of any length; what the control plane makes of an event must still fit a record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from . import codecs
from .errors import EventInvalid
from .events import Event
from .records import Record

MAX_NAME_CHARACTERS = 256
# A job is named after its episode and a milestone, an alert after its episode.
MAX_DERIVED_CHARACTERS = MAX_NAME_CHARACTERS + 32
MAX_EVENT_CHARACTERS = 500_000
MAX_DEPTH = 16
INT64 = range(-(2**63), 2**63)
NAMES = {
    "model": MAX_NAME_CHARACTERS,
    "episode_id": MAX_NAME_CHARACTERS,
    "recipe": MAX_NAME_CHARACTERS,
    "worker": MAX_NAME_CHARACTERS,
    "job_id": MAX_DERIVED_CHARACTERS,
    "alert_id": MAX_DERIVED_CHARACTERS,
}


def decode_control(record: Record, carries: Any) -> Event:
    """Return the event of a record that the control plane, a worker or a registry may fold; raises EventInvalid."""
    event: Event = codecs.decode(record.value, carries, f"{record.topic}[{record.partition}] offset {record.offset}")
    check_control(event)
    return event


def check_control(event: Event) -> None:
    """Check what every control event must meet; raises EventInvalid."""
    for name, limit in NAMES.items():
        value = getattr(event, name, None)
        if isinstance(value, str):
            check_name(name, value, limit)
    characters = 0
    for value in _leaves(event, 0):
        if isinstance(value, str):
            characters += len(value)
            _check_text(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise EventInvalid("non_finite", f"numbers of an event must be finite, got {value}")
        elif isinstance(value, int) and value not in INT64:
            raise EventInvalid("invalid", f"whole numbers of an event must fit 64 bits, got one of {value.bit_length()} bits")
    if characters > MAX_EVENT_CHARACTERS:
        raise EventInvalid("too_large", f"texts of an event must be at most {MAX_EVENT_CHARACTERS} characters, got {characters}")


def check_name(what: str, value: str, limit: int = MAX_NAME_CHARACTERS) -> None:
    """Check the name of a model, an episode, a job or an alert; raises EventInvalid."""
    if not 1 <= len(value) <= limit:
        raise EventInvalid("invalid", f"{what} must be 1 to {limit} characters, got {len(value)}")
    if not value.isprintable():
        raise EventInvalid("invalid", f"{what} must be printable characters, got {value!a}")


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EventInvalid("malformed", f"text must be Unicode, got {value[:80]!a}") from None


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    """Yield every text and number inside a value."""
    if depth > MAX_DEPTH:
        raise EventInvalid("invalid", f"an event must be at most {MAX_DEPTH} levels deep")
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _leaves(getattr(value, name), depth + 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, depth + 1)
    else:
        yield value
