"""Values, times and bytes about which formats, columns and numbers disagree, drawn at random: what the fuzzers of events are made of."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

INF = float("inf")
WHOLE = (
    0,
    1,
    -1,
    2,
    3,
    255,
    2**31 - 1,
    2**31,
    -(2**31),
    2**53 - 1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64 - 1,
    2**64,
    10**30,
)
FLOATS = (
    0.0,
    -0.0,
    0.5,
    1.0,
    -1.5,
    5e-324,
    1e-46,
    3.4028235e38,
    3.4028236e38,
    -3.5e38,
    1e39,
    1.7e308,
    INF,
    -INF,
    float("nan"),
    1e9,
)
TEXTS = (
    "",
    " ",
    "1",
    "0.5",
    "NaN",
    "null",
    "true",
    "x" * 255,
    "x" * 257,
    "é" * 128,
    "\u202eabc",
    "a\nb",
    "a\x00b",
    "\ud800",
    "😀" * 70,
    "\x1b[31m",
    "٣",
    "2024-01-01T00:00:00",
    "../x",
    "a,b",
)
NESTED: tuple[Any, ...] = ([], {}, [1], [[]], {"a": None}, [None], {"": 1}, [1.5, "x"], {"a": {"b": [1]}})
LITERALS = (
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"-0",
    b"00",
    b"0x1",
    b"1.",
    b".5",
    b"NaN",
    b"-Infinity",
    b"1" * 400,
    b"9" * 5_000,
    b"1.0000000000000000000000001",
    b"123456789012345678901",
    b"true",
    b"1_0",
    b"+1",
    b'"\\ud800"',
    b"[" * 2_000,
)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
PACKERS: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, zlib.compress, bz2.compress, lzma.compress)


def odd_value(rng: Random) -> Any:
    """Return a value that some door may not take."""
    pool: Any = rng.choice((WHOLE, FLOATS, FLOATS, TEXTS, NESTED, (None, True, False)))
    return rng.choice(pool)


def odd_time(rng: Random, now_s: float) -> Any:
    """Return an event time in one of the units, zones and forms that producers send."""
    forms: tuple[Callable[[], Any], ...] = (
        lambda: now_s * 10 ** rng.choice((3, 6, 9)),
        lambda: now_s + rng.choice((-1e9, -1e6, -3_600.0, 299.0, 301.0, 86_400.0, 1e7)),
        lambda: int(now_s),
        lambda: rng.choice(("2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20.123456789+05:30", "2023-11-14")),
        lambda: rng.choice(
            ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "2023-11-14T23:59:60Z", "10000-01-01T00:00:00Z")
        ),
        lambda: odd_value(rng),
    )
    return rng.choice(forms)()


def altered(tree: Any, rng: Random) -> Any:
    """Return a tree of dicts and lists with one place replaced, removed, doubled or added."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        name = rng.choice(list(tree))
        if isinstance(tree[name], dict | list) and rng.random() < 0.6:
            return {**tree, name: altered(tree[name], rng)}
        what = rng.random()
        if what < 0.2:
            return {key: value for key, value in tree.items() if key != name}
        if what < 0.3:
            return {**tree, rng.choice(TEXTS): tree[name]}
        return {**tree, name: odd_value(rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        what = rng.random()
        if what < 0.2:
            return tree[:at] + tree[at + 1 :]
        return tree[:at] + [odd_value(rng)] * rng.choice((1, 1, 2, 50)) + tree[at + 1 :]
    return odd_value(rng)


def encoded(tree: Any, rng: Random) -> bytes:
    """Return a tree as JSON or a msgpack map, as JSON where msgpack does not hold it."""
    if rng.random() < 0.4:
        try:
            return msgspec.msgpack.encode(tree)
        except (OverflowError, UnicodeEncodeError):
            pass
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")
    return rng.choice((b"", b"", b"", b" ", b"\n\t")) + text


def mangled(data: bytes, rng: Random) -> bytes:
    """Return bytes with a few flipped, cut, doubled, moved or compressed, or one number written in another way."""
    if not data:
        return rng.randbytes(rng.choice((1, 3, 40)))
    at = rng.randrange(len(data))
    what = rng.randrange(8)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + rng.randbytes(rng.choice((1, 1, 2, 8))) + data[at + 1 :]
    if what == 2:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if what == 3:
        return data[:at] + data[at // 2 :]
    if what == 4:
        return data + rng.choice((b" ", b"\x00", data, b"{}", b"\xc0"))
    if what == 5:
        return rng.choice(PACKERS)(data)
    return _rewritten(data, rng)


def _rewritten(data: bytes, rng: Random) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return data[::-1]
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(LITERALS) + data[one.end() :]
