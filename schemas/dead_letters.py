"""Dead letters: the bytes unchanged, headers that say why (header names after KIP-1317's draft)."""

from __future__ import annotations

import msgspec

DISPOSITIONS = (
    "malformed",  # not JSON or msgpack, or no event of this topic: wrong types, missing fields
    "invalid",  # an event whose values break a rule: empty id, wrong shape, unknown class
    "non_finite",  # NaN, infinity, or beyond float32
    "too_large",  # more bytes or more features than allowed
    "future",  # an event time far after the record's own time stamp
    "unjoinable",  # a label whose prediction never came within the join window
    "processing_error",  # a fault of ours: the record is kept, the stream goes on
)

PREFIX = "__dlq.errors."


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Be one refused record, with the position it had and the reason it was refused."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    disposition: str
    message: str


def dead_letter_headers(letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """Return the original headers followed by the `__dlq.errors.*` ones."""
    said = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "timestamp": str(letter.timestamp_ms),
        "disposition": letter.disposition,
        "message": letter.message[:2048],
    }
    added = [(PREFIX + name, text.encode("utf-8", "replace")) for name, text in said.items()]
    return [*letter.headers, *added]
