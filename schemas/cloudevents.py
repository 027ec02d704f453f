"""CloudEvents 1.0 binary mode headers for what driftloop writes (cloudevents/spec, Kafka protocol binding)."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from .codecs import JSON, encode_json, type_name
from .events import Event
from .records import Headers

SOURCE = "driftloop"


def event_id(value: bytes) -> str:
    """Return an id made from the bytes alone, so that the same event sent twice has the same id."""
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def encode_event(event: Event, produced_at: float, source: str = SOURCE) -> tuple[bytes, bytes, Headers]:
    """Return key, value and headers of a record; `produced_at` (seconds) is the one field from a wall clock."""
    value = encode_json(event)
    headers = (
        ("content-type", JSON.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id(value).encode()),
        ("ce_source", source.encode()),
        ("ce_type", type_name(event).encode()),
        ("ce_subject", event.model.encode()),
        ("ce_time", datetime.fromtimestamp(produced_at, UTC).isoformat().encode()),
    )
    return event.model.encode(), value, headers
