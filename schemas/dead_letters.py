"""Dead letters: the bytes unchanged, headers that say why (header names after KIP-1317's draft)."""

from __future__ import annotations

import hashlib

import msgspec

from .records import Headers

DISPOSITIONS = (
    "malformed",  # not JSON or msgpack, or no event of this topic: wrong types, missing fields
    "invalid",  # an event whose values break a rule: empty id, wrong shape, unknown class
    "non_finite",  # NaN, infinity, or beyond float32
    "too_large",  # more bytes or more features than allowed
    "future",  # an event time far after the record's own time stamp
    "over_limit",  # a bound of the settings leaves no room: models, features, versions; the message names the setting
    "unjoinable",  # a label whose prediction never came within the join window
    "processing_error",  # a fault of ours: the record is kept, the stream goes on
)

PREFIX = "__dlq.errors."
# Below what any topic takes that was made with a broker's defaults, and what any client sends, whatever the compression.
SAFE_BYTES = 900_000
KEPT_KEY_BYTES = 4_096
RECORD_BYTES = 128
HEADER_BYTES = 16


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One refused record, with the position it had and the reason it was refused."""

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


def dead_letter_record(letter: DeadLetter, limit_bytes: int = SAFE_BYTES) -> tuple[bytes | None, bytes | None, Headers]:
    """Return key, value and headers of a dead letter, at most `limit_bytes` uncompressed.

    What is too large is cut, and headers tell size and sha256 of the whole value, and how many bytes of headers and key there were.
    """
    headers = tuple(dead_letter_headers(letter))
    if _size(letter.key, letter.value, headers) <= limit_bytes:
        return letter.key, letter.value, headers
    cut = {"cut": "true"}
    if letter.value is not None:
        cut |= {"size_bytes": str(len(letter.value)), "sha256": hashlib.sha256(letter.value).hexdigest()}
    key = letter.key
    if key is not None and len(key) > KEPT_KEY_BYTES:
        cut["key_size_bytes"] = str(len(key))
        key = key[:KEPT_KEY_BYTES]
    said = headers[len(letter.headers) :]
    kept = letter.headers
    if _size(None, None, kept) > limit_bytes // 4:
        cut["headers_size_bytes"] = str(_size(None, None, kept) - RECORD_BYTES)
        kept = _first(kept, limit_bytes // 4)
    said += tuple((PREFIX + name, text.encode()) for name, text in cut.items())
    room = max(0, limit_bytes - _size(key, None, kept + said))
    return key, None if letter.value is None else letter.value[:room], kept + said


def _first(headers: Headers, limit_bytes: int) -> Headers:
    """Return the headers from the first on that fit."""
    room = limit_bytes - RECORD_BYTES
    for count, header in enumerate(headers):
        room -= _size(None, None, (header,)) - RECORD_BYTES
        if room < 0:
            return headers[:count]
    return headers


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return about how many bytes a record has on the wire."""
    said = sum(HEADER_BYTES + len(name.encode()) + len(text or b"") for name, text in headers)
    return RECORD_BYTES + len(key or b"") + len(value or b"") + said
