"""Dead letters: unchanged where they fit, cut with size and digest of the whole where they do not."""

import hashlib

import pytest

from driftloop.schemas.dead_letters import SAFE_BYTES, DeadLetter, dead_letter_headers, dead_letter_record
from driftloop.schemas.records import Headers


def letter(value: bytes | None, headers: Headers = (), key: bytes | None = b"m") -> DeadLetter:
    return DeadLetter(
        topic="t",
        partition=1,
        offset=7,
        timestamp_ms=5,
        key=key,
        value=value,
        headers=headers,
        disposition="malformed",
        message="no event",
    )


def size_of(record: tuple[bytes | None, bytes | None, Headers]) -> int:
    key, value, headers = record
    return len(key or b"") + len(value or b"") + sum(len(name.encode()) + len(text or b"") for name, text in headers)


@pytest.mark.parametrize("value", [None, b"", b"{", b"x" * 800_000])
def test_what_fits_is_unchanged(value: bytes | None) -> None:
    whole = letter(value, (("a", b"1"), ("none", None)))
    assert dead_letter_record(whole) == (b"m", value, tuple(dead_letter_headers(whole)))


@pytest.mark.parametrize(
    "whole",
    [
        letter(b"x" * 5_000_000),
        letter(b"x" * SAFE_BYTES, (("h", b"y" * 2_000_000),)),
        letter(None, tuple((f"h{n}", b"y" * 50) for n in range(40_000))),
        letter(b"x", (("n" * 2_000_000, b""), ("ce_type", b"t"))),
        letter(b"x", key=b"k" * 3_000_000),
        letter(b"x" * 3_000_000, (("h", b"y" * 3_000_000),), key=b"k" * 3_000_000),
    ],
)
@pytest.mark.parametrize("limit", [SAFE_BYTES, 20_000])
def test_what_does_not_fit_is_cut_and_says_what_the_whole_was(whole: DeadLetter, limit: int) -> None:
    record = dead_letter_record(whole, limit)
    assert size_of(record) <= limit
    told = {name.removeprefix("__dlq.errors."): text for name, text in record[2] if name.startswith("__dlq.errors.")}
    assert (told["disposition"], told["offset"], told["cut"]) == (b"malformed", b"7", b"true")
    if whole.value is not None:
        assert told["size_bytes"] == str(len(whole.value)).encode()
        assert told["sha256"] == hashlib.sha256(whole.value).hexdigest().encode()
        assert record[1] is not None
        assert whole.value.startswith(record[1])
