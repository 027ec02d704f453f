"""Tell which topic a line of NDJSON belongs to: by its `type`, else by the fields it has."""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

import msgspec

from ..schemas import topics
from ..schemas.errors import EventInvalid
from ..schemas.values import seconds

PREDICTION_TYPES = ("prediction_made", "driftloop.prediction_made.v1")
LABEL_TYPES = ("label_arrived", "driftloop.label_arrived.v1")
LATEST_TS = 253_402_300_800.0  # the year 10000: what lies beyond is no time of a record


class Told(NamedTuple):
    """What a line says about itself: topic kind, model, event time in milliseconds if it has a sound one."""

    kind: str
    model: str
    ts_ms: int | None


class _Peek(msgspec.Struct):
    type: object = None
    model: object = None
    ts: object = None
    output: object = msgspec.UNSET
    features: object = msgspec.UNSET
    label: object = msgspec.UNSET
    data: object = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Peek)


def tell(line: bytes) -> Told:
    """Return what an NDJSON line is; raises EventInvalid for one that is no JSON object or fits no input topic."""
    try:
        peek = _decoder.decode(line)
        if isinstance(peek.data, dict):
            inner = msgspec.convert(peek.data, _Peek)
            inner.type = inner.type or peek.type
            peek = inner
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise EventInvalid("malformed", f"line must be a JSON object: {problem}") from None
    model = peek.model if isinstance(peek.model, str) else ""
    return Told(_kind(peek), model, _timestamp_ms(peek.ts))


def _kind(peek: _Peek) -> str:
    if peek.type in PREDICTION_TYPES:
        return "predictions"
    if peek.type in LABEL_TYPES:
        return "labels"
    if isinstance(peek.type, str) and peek.type.removeprefix("driftloop.").startswith("model_"):
        return "models"
    if peek.type is None and peek.label is not msgspec.UNSET and peek.output is msgspec.UNSET:
        return "labels"
    if peek.type is None and (peek.output is not msgspec.UNSET or peek.features is not msgspec.UNSET):
        return "predictions"
    wanted = ", ".join(topics.DATA_PLANE_INPUTS)
    raise EventInvalid("malformed", f"line must be an event of {wanted}, got type {peek.type!r}")


def _timestamp_ms(ts: object) -> int | None:
    if isinstance(ts, str):
        try:
            ts = seconds(datetime.fromisoformat(ts))
        except ValueError:
            return None
    if isinstance(ts, bool) or not isinstance(ts, int | float) or not math.isfinite(ts) or not 0 <= ts < LATEST_TS:
        return None
    return int(ts * 1000)
