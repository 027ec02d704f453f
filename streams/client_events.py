"""What the SDK sends: predictions and labels, checked by the rules of admission and packed, in a few microseconds of the caller's time."""

from __future__ import annotations

import difflib
import os
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NoReturn, Required, TypedDict

from numpy.typing import NDArray

from ..detectors.admission import MAX_LABEL_BYTES, Admission
from ..schemas.codecs import PackedLabel, PackedPrediction, encode_json, encode_msgpack
from ..schemas.config import MonitorConfig
from ..schemas.errors import EventInvalid
from ..schemas.events import LabelArrived, PredictionMade, Scalar
from ..schemas.values import label as label_of
from ..schemas.values import output as output_of
from ..schemas.values import recognised, time_of
from ..schemas.values import version as version_of
from .client_features import Features, one_row, packed, plain

Format = Literal["packed", "json"]
Time = float | datetime | None
PLAIN = frozenset({int, float, str, bool})
"""Types of outputs that need no look at the table of values: admission judges them."""
NO_SURROGATES = "text must be Unicode, got a lone surrogate"
RANDOM_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF
VERSION_BITS = 0x7000_8000_0000_0000_0000

# A generator of our own, seeded by the kernel: a program that seeds the shared one would make the same ids at each run.
_random = random.Random()


class PredictionFields(TypedDict, total=False):
    """The arguments of `log_prediction`.

    `output` is a class or a number; `version` the model's (default 1). `features`: name -> number, truth value, text or None; or one row
    of a frame, a series or a record, by its names; or values in the order of the model's signature, None or NaN where one is missing.
    `scores` one per class, in the signature's order. `prediction_id`: made (UUIDv7) where absent. `ts` seconds since 1970 or a datetime,
    which is UTC where it has no zone; default now.
    """

    output: Required[Scalar]
    version: int
    features: Features
    prediction_id: str
    scores: Sequence[float] | NDArray[Any]
    segment: str
    latency_ms: float
    ts: Time


FIELDS = frozenset(PredictionFields.__annotations__)


class UnknownField(EventInvalid, TypeError):
    """A keyword that `log_prediction` does not have."""


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): it sorts by time."""
    number = time.time_ns() // 1_000_000 << 80 | _random.getrandbits(80) & RANDOM_BITS | VERSION_BITS
    text = number.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def reseed() -> None:
    """Draw a new seed, in a forked child, which would make its parent's ids again."""
    _random.seed(None)


def prediction_value(
    model: str, prediction_id: str, fields: PredictionFields, form: Format, rules: Admission | None = None
) -> bytes:
    """Return the bytes of a prediction that the monitor admits; raises EventInvalid with the rule it breaks.

    Text among the features makes it JSON: packed features are float32.
    """
    rules = _default_rules() if rules is None else rules
    if not fields.keys() <= FIELDS or "output" not in fields:
        _refuse_fields(fields)
    try:
        value = _prediction(model, prediction_id, fields, form, rules)
    except UnicodeEncodeError:
        raise EventInvalid("invalid", NO_SURROGATES) from None
    rules.size(value, rules.config.max_value_bytes)
    return value


def _prediction(model: str, prediction_id: str, fields: PredictionFields, form: Format, rules: Admission) -> bytes:
    name, now = _model(model, rules), time.time()
    version, output, ts = fields.get("version", 1), fields["output"], fields.get("ts")
    segment, latency, features = fields.get("segment"), fields.get("latency_ms"), one_row(fields.get("features", ()))
    stated = (
        version if type(version) is int else version_of(version),
        _text(prediction_id, "prediction_id"),
        now if ts is None else time_of(ts),
        output if type(output) in PLAIN else output_of(output),
    )
    scores = _scores(fields.get("scores"))
    segment = None if segment is None else _text(segment, "segment")
    latency = None if latency is None else _number(latency, "latency_ms")
    names_and_numbers = packed(features, rules) if form == "packed" else None
    if names_and_numbers is not None:
        names, numbers = names_and_numbers
        small = PackedPrediction(name, *stated, numbers, names, scores, segment, latency)
        rules.facts(small, int(now * 1000))
        return encode_msgpack(small)
    made = PredictionMade(
        model=name,
        version=stated[0],
        prediction_id=stated[1],
        ts=stated[2],
        output=stated[3],
        features=plain(features, rules),
        scores=scores,
        segment=segment,
        latency_ms=latency,
    )
    rules.facts(made, int(now * 1000))
    return encode_json(made)


def label_value(arrived: LabelArrived, form: Format, rules: Admission | None = None) -> bytes:
    """Return the bytes of a label that the monitor admits, null for one taken back; raises EventInvalid with the rule it breaks."""
    rules = _default_rules() if rules is None else rules
    now, name = time.time(), _model(arrived.model, rules)
    ident, label = _text(arrived.prediction_id, "prediction_id"), label_of(arrived.label)
    ts = now if arrived.ts is None else time_of(arrived.ts)
    made = LabelArrived(model=name, prediction_id=ident, label=label, ts=ts)
    try:
        rules.label(made, name.encode(), int(now * 1000))
        value = encode_msgpack(PackedLabel(name, ident, label, ts)) if form == "packed" else encode_json(made)
    except UnicodeEncodeError:
        raise EventInvalid("invalid", NO_SURROGATES) from None
    rules.size(value, min(rules.config.max_value_bytes, MAX_LABEL_BYTES))
    return value


@lru_cache(maxsize=1)
def _default_rules() -> Admission:
    return Admission(MonitorConfig())


def _refuse_fields(fields: PredictionFields) -> NoReturn:
    for name in fields.keys() - FIELDS:
        close = difflib.get_close_matches(name, FIELDS, 1)
        hint = f": did you mean {close[0]!r}?" if close else ""
        raise UnknownField("invalid", f"keywords must be of {', '.join(sorted(FIELDS))}, got {name!r}{hint} (log_prediction)")
    raise EventInvalid("invalid", "output must be given, got none (log_prediction)")


def _model(model: Any, rules: Admission) -> str:
    name = model if type(model) is str else _text(model, "model")
    _check_name(name, rules)
    return name


@lru_cache(maxsize=1024)
def _check_name(name: str, rules: Admission) -> None:
    # What breaks the rule raises, and is not remembered.
    rules.name(name, name.encode(errors="replace"))


def _text(value: Any, what: str) -> str:
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise EventInvalid("invalid", f"{what} must be text, got {type(value).__name__}")
    return str.__str__(value)


def _scores(scores: Any) -> list[float] | None:
    if scores is None:
        return None
    row = one_row(scores, "scores")
    if isinstance(row, Mapping):
        raise EventInvalid("invalid", "scores must be a list in the order of the signature's classes, got names")
    return [score if type(score) is float else _number(score, "scores") for score in row]


def _number(value: Any, what: str) -> float:
    kind, plain_value = recognised(value)
    if kind not in ("whole", "number", "nan", "infinite"):
        raise EventInvalid("invalid", f"{what} must be a number, got {type(value).__name__}")
    return float(plain_value)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reseed)
