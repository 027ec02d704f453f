"""Fuzzed records for `fuzz_records.py`: odd models with a character each, floods, garbage, and attacks on the keys of good models."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from driftloop.benchmarks.odd_values import NESTED, TEXTS, altered, encoded, mangled, odd_time, odd_value
from driftloop.schemas.codecs import pack_features
from driftloop.schemas.records import Headers, Record

GOOD = ("good-0", "good-1", "good-2")
CHARACTERS = 40
KEPT_IDS = 500
SHAPES = ("gauss", "counter", "saw", "sine", "constant", "huge", "tiny", "binary", "text", "gaps", "step", "odd", "grid")
OUTPUTS = ("whole", "text", "truth", "float", "wide", "mixed", "many")
SCORES = ("none", "none", "full", "first", "logits", "sums", "odd", "wide")
STAMPS_MS = (-1, 0, 1, -(2**63), 946_684_800_000)
FORMS = ("dict", "dict", "list", "packed", "packed", "cloud", "odd")


@dataclass
class Character:
    """An odd model: what its features, outputs and scores look like, and how often a record of it is altered."""

    name: str
    names: list[str]
    shapes: list[str]
    output: str
    scores: str
    form: str
    versions: str
    altered: float
    ids: deque[tuple[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_IDS))
    rows: int = 0


def character(seed: int, at: int) -> Character:
    """Return odd model number `at` of a seed."""
    rng = Random(f"{seed}/{at}")
    width = rng.choice((0, 1, 2, 3, 5, 8, 12, 60, 300 if at % 10 == 0 else 4))
    odd = [text for text in TEXTS if text.isprintable()]
    names = list(dict.fromkeys(rng.choice(odd) if rng.random() < 0.1 else f"f{n}" for n in range(width)))
    return Character(
        name=f"fuzz-{at}",
        names=names,
        shapes=[rng.choice(SHAPES) for _ in names],
        output=rng.choice(OUTPUTS),
        scores=rng.choice(SCORES),
        form=rng.choice(FORMS),
        versions=rng.choice(("one", "one", "steps", "few", "flood")),
        altered=rng.choice((0.0, 0.02, 0.3)),
    )


class Fuzz:
    """The fuzzed records of a seed, one after another; `sure` holds the offsets of those that must become dead letters."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._characters = [character(seed, at) for at in range(CHARACTERS)]
        self._good_ids: dict[str, deque[str]] = {name: deque(maxlen=KEPT_IDS) for name in GOOD}
        self._last = b"{}"
        self._number = 0
        self.sure: set[int] = set()

    def good_joined(self, model: str, prediction_id: str) -> None:
        """Remember a good model's prediction that has its label."""
        self._good_ids[model].append(prediction_id)

    def next(self, offset: int, now_ms: int) -> Record:
        """Return the next record."""
        self._number += 1
        rng, what = self._rng, self._rng.random()
        one = rng.choice(self._characters)
        if what < 0.50:
            topic, key, value = "predictions", one.name.encode(), self._prediction(one, now_ms / 1000)
        elif what < 0.78:
            topic, key, value = "labels", one.name.encode(), self._label(one, now_ms / 1000)
        elif what < 0.82:
            topic, key, value = self._flood()
        elif what < 0.86:
            topic, key, value = "models", one.name.encode(), self._model_event(one)
        elif what < 0.95:
            topic, key, value, is_sure = self._at_good(now_ms / 1000)
            if is_sure:
                self.sure.add(offset)
        else:
            topic, key, value = self._garbage(one)
        # A time is held against that of its record: what is to be refused for it has one.
        stamp_ms = now_ms if offset in self.sure or rng.random() < 0.99 else rng.choice(STAMPS_MS)
        if value:
            self._last = value
        return Record(
            topic=topic, partition=0, offset=offset, timestamp_ms=stamp_ms, key=key, value=value, headers=_headers(rng, value)
        )

    def _prediction(self, one: Character, now_s: float) -> bytes:
        rng = self._rng
        one.rows += 1
        output = _output(one, rng)
        ident = f"p{self._number}"
        one.ids.append((ident, output))
        features = [_feature(shape, one.rows, rng) for shape in one.shapes]
        version = {"one": 1, "steps": 1 + one.rows // 700, "few": rng.randint(1, 4), "flood": one.rows}[one.versions]
        ts = now_s if rng.random() < 0.9 else odd_time(rng, now_s)
        if one.form == "packed" or (one.form == "odd" and rng.random() < 0.5):
            return self._packed(one, [one.name, version, ident, ts, output, features])
        tree: dict[str, Any] = {"model": one.name, "version": version, "prediction_id": ident, "output": output}
        tree["features"] = features if one.form == "list" else dict(zip(one.names, features, strict=True))
        if rng.random() < 0.9:
            tree["ts"] = ts
        scores = _scores(one, rng)
        if scores is not None:
            tree["scores"] = scores
        if rng.random() < one.altered:
            tree = altered(tree, rng)
        if one.form == "cloud":
            tree = {"specversion": "1.0", "id": ident, "source": "s", "type": "t", "data": tree}
        return self._perhaps_mangled(encoded(tree, rng), one)

    def _packed(self, one: Character, row: list[Any]) -> bytes:
        rng = self._rng
        numbers = [value if isinstance(value, float) else None for value in row[5]]
        # Numbers beyond float32 cannot be packed.
        row[5] = pack_features([value if value is None or abs(value) < 3.4e38 else math.inf for value in numbers])
        row += ["" if rng.random() < 0.5 else "\n".join(one.names), _scores(one, rng), "seg" if rng.random() < 0.1 else None, 1.5]
        if rng.random() < one.altered:
            at = rng.randrange(len(row))
            row[at] = odd_value(rng)
        if rng.random() < 0.05:
            row = row[: rng.randrange(4, len(row))]
        return self._perhaps_mangled(_msgpack(row), one)

    def _label(self, one: Character, now_s: float) -> bytes:
        rng = self._rng
        ident, output = rng.choice(one.ids) if one.ids and rng.random() < 0.9 else (f"p{self._number + rng.randint(-900, 900)}", 1)
        label = output if rng.random() < 0.7 else rng.choice((None, 0, 1, "a", 0.5, True, odd_value(rng)))
        if rng.random() < 0.3:
            return self._perhaps_mangled(_msgpack([one.name, ident, label, rng.choice((None, now_s))]), one)
        tree: Any = {"model": one.name, "prediction_id": ident, "label": label}
        if rng.random() < 0.3:
            tree["ts"] = odd_time(rng, now_s)
        if rng.random() < one.altered:
            tree = altered(tree, rng)
        return self._perhaps_mangled(encoded(tree, rng), one)

    def _perhaps_mangled(self, data: bytes, one: Character) -> bytes:
        return mangled(data, self._rng) if self._rng.random() < one.altered / 3 else data

    def _flood(self) -> tuple[str, bytes, bytes]:
        rng = self._rng
        name = rng.choice((f"name-{self._number}", f"name-{self._number % 300}", "n" * rng.choice((200, 201)), f"é{self._number}"))
        width = rng.choice((0, 1, 3, 30, 2_001 if rng.random() < 0.02 else 2))
        tree = {
            "model": name,
            "version": 1,
            "prediction_id": f"p{self._number}",
            "output": odd_value(rng) if rng.random() < 0.2 else 1,
        }
        tree["features"] = {f"f{n}": 0.5 for n in range(width)}
        return "predictions", name.encode(), encoded(tree, rng)

    def _model_event(self, one: Character) -> bytes:
        rng = self._rng
        task = rng.choice(("classification", "regression"))
        classes: list[Any] = rng.choice(([0, 1], ["a", "b"], [0, 1, 2], list(range(100)), [False, True], [1], [0.0, 1.5]))
        signature = {"task": task, "features": list(one.names), "classes": classes if task == "classification" else []}
        if rng.random() < 0.3:
            signature["features"] = [*rng.sample(one.names, len(one.names) // 2), "new"]
        version = rng.choice((1, 2, 3, 4, 2**31 - 1))
        event: Any = {"type": "model_registered", "model": one.name, "version": version, "digest": "d", "uri": "u", "size_bytes": 1}
        event["signature"] = signature
        if rng.random() < 0.5:
            kind = rng.choice(("model_promoted", "model_rolled_back", "model_rejected"))
            event = {
                "type": kind,
                "model": one.name,
                "version": version,
                "digest": "d",
                "reason": "r",
                "from_version": 1,
                "reasons": [],
            }
        if rng.random() < 0.4:
            event = altered(event, rng)
        data = encoded(event, rng)
        return mangled(data, rng) if rng.random() < 0.1 else data

    def _at_good(self, now_s: float) -> tuple[str, bytes | None, bytes | None, bool]:
        """Return a record under a good model's key that must change nothing, and whether it must become a dead letter."""
        rng = self._rng
        name = rng.choice(GOOD)
        key, known = name.encode(), self._good_ids[name]
        if known and rng.random() < 0.2:
            tree = {"model": name, "prediction_id": rng.choice(known), "label": rng.choice((0, 1, None))}
            return "labels", key, encoded(tree, rng), False
        if rng.random() < 0.3:
            tree = {"model": name, "prediction_id": "nobody", "label": 1}
            return "labels", key, encoded(tree | rng.choice(BAD_LABELS), rng), True
        if rng.random() < 0.1:
            return (
                "models",
                key,
                encoded({"type": "model_registered", "model": name, "version": rng.choice((0, "1", 2**31))}, rng),
                True,
            )
        tree = {"model": name, "version": 1, "prediction_id": f"p{self._number}", "output": 1, "ts": now_s, "scores": [0.5, 0.5]}
        tree["features"] = dict.fromkeys("abcd", 0.5)
        what = rng.randrange(6)
        if what == 0:
            data = encoded(tree, rng).strip()
            return "predictions", key, data[: rng.randrange(len(data))], True
        if what == 1:
            return "predictions", rng.choice((None, b"", b"\xff", b"other", key + b" ")), encoded(tree, rng), True
        if what == 2:
            return "predictions", key, rng.choice((None, b"", b"\xc1abc", b"42", b"[1,2]", b"null", mangled(b"", rng) * 0)), True
        bad = rng.choice(BAD_PREDICTIONS)
        if what == 3:
            tree = {field: value for field, value in tree.items() if field != rng.choice(("model", "version"))}
            bad = {"model": "x"} if "model" not in tree else {"version": None}
        return "predictions", key, encoded(tree | bad, rng), True

    def _garbage(self, one: Character) -> tuple[str, bytes | None, bytes | None]:
        rng = self._rng
        topic = rng.choice(("predictions", "labels", "models"))
        key = rng.choice(
            (None, b"", rng.randbytes(9), one.name.encode(), b"k" * 3_000, rng.choice(TEXTS).encode("utf-8", "replace"))
        )
        value = rng.choice((None, b"", self._last, mangled(self._last, rng), rng.randbytes(rng.choice((1, 9, 400)))))
        if rng.random() < 0.02:
            value = rng.choice((b"[" * 100_000, b'{"a":' * 20_000, b"\x91" * 100_000, b"\x81\xa1a" * 20_000, b"x" * 1_100_000))
        return topic, key, value


BAD_LABELS: tuple[dict[str, Any], ...] = (
    {"model": "other"},
    {"prediction_id": ""},
    {"prediction_id": 5},
    {"prediction_id": "x" * 257},
    {"label": [1]},
    {"label": 1e39},
    {"label": ""},
    {"label": "x" * 300},
    {"label": 2**64},
    {"ts": 5},
    {"ts": "yesterday"},
    {"pad": "x" * 70_000},
)
BAD_PREDICTIONS: tuple[dict[str, Any], ...] = (
    {"model": "other"},
    *({"version": version} for version in (0, -1, 2**31, 2**64, "1", 1.5, True, None)),
    *({"output": output} for output in (*NESTED, "", "x" * 300, "text", 1e39, 2**70, None)),
    *({"prediction_id": ident} for ident in ("", "x" * 257, 5, None)),
    *({"ts": ts} for ts in (5, 1.7e12, 1.7e18, 1e308, "yesterday", [])),
    *({"features": features} for features in ({"a": 1e39}, {"a": [1]}, "abc", [0.5] * 3, 5, {f"f{n}": 1.0 for n in range(2_001)})),
    *({"scores": scores} for scores in ([0.1, 0.2, 0.7], ["x"], {"0": 1}, [1e39, 0.5], [None, 0.5])),
    *({"latency_ms": latency} for latency in ("fast", 1e300, [])),
    {"segment": 5},
)


def _msgpack(tree: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(tree)
    except (OverflowError, UnicodeEncodeError):
        return b"\x9a" + msgspec.msgpack.encode(None)


def _headers(rng: Random, value: bytes | None) -> Headers:
    if rng.random() < 0.8:
        return (("content-type", b"application/json"),)
    name = rng.choice(("ce_specversion", "ce_type", "content-type", "", "é", "x" * 500))
    return ((name, rng.choice((None, b"", b"1.0", b"\xff\xfe", value and value[:900]))),) * rng.choice((1, 3, 40))


def _feature(shape: str, row: int, rng: Random) -> Any:
    if shape == "gaps" and rng.random() < 0.5:
        return None
    return {
        "counter": lambda: float(row),
        "saw": lambda: float(row % 97),
        "sine": lambda: math.sin(row / 800),
        "constant": lambda: 7.0,
        "huge": lambda: rng.choice((3.3e38, -3.3e38, 1e30)),
        "tiny": lambda: rng.choice((1e-45, 5e-324, 0.0, -1e-40)),
        "binary": lambda: rng.random() < 0.5,
        "text": lambda: rng.choice(("red", "green", "", "é")),
        "step": lambda: rng.gauss(0, 1) + 5 * (row // 900 % 2),
        "odd": lambda: odd_value(rng) if rng.random() < 0.1 else 0.5,
        "grid": lambda: float(rng.randint(0, 3)),
    }.get(shape, lambda: rng.gauss(0, 1))()


def _output(one: Character, rng: Random) -> Any:
    return {
        "whole": lambda: int(rng.random() < 0.5),
        "text": lambda: rng.choice(("a", "b", "é")),
        "truth": lambda: rng.random() < 0.5,
        "float": lambda: rng.gauss(0, 10 ** (one.rows // 1_000 % 30)),
        "wide": lambda: rng.choice((2**53, 2**62, -(2**63), 2**63 - 1, 3.3e38)),
        "mixed": lambda: rng.choice((0, 1, "a", True, 0.5)),
        "many": lambda: rng.randint(0, 700),
    }[one.output]()


def _scores(one: Character, rng: Random) -> Any:
    if one.scores == "none":
        return None
    share = rng.random()
    return {
        "full": lambda: [1 - share, share],
        "first": lambda: [share],
        "logits": lambda: [rng.gauss(0, 5), rng.gauss(0, 5)],
        "sums": lambda: [share, share],
        "odd": lambda: [rng.choice((0.5, 1.0, 0.0, -1.0, 3e38, odd_value(rng) if rng.random() < 0.1 else 0.2)) for _ in range(2)],
        "wide": lambda: [1 / 70] * 70,
    }[one.scores]()
