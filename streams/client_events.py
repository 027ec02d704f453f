"""What the SDK sends: predictions and labels, checked and packed at the caller's expense of a few microseconds."""

from __future__ import annotations

import math
import random
import struct
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, Required, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..schemas.codecs import PackedLabel, PackedPrediction, encode_json, encode_msgpack
from ..schemas.errors import EventInvalid
from ..schemas.events import FeatureValue, LabelArrived, PredictionMade, Scalar

Format = Literal["packed", "json"]
Features = Mapping[str, FeatureValue] | Sequence[FeatureValue] | NDArray[Any]
Time = float | datetime | None
PLAIN = frozenset({int, float, str, bool})
RANDOM_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF
VERSION_BITS = 0x7000_8000_0000_0000_0000
MAX_FLOAT32 = float(np.finfo(np.float32).max)

# A generator of our own, seeded by the kernel: a program that seeds the shared one would make the same ids at each run.
_random = random.Random()


class PredictionFields(TypedDict, total=False):
    """Name the arguments of `log_prediction`.

    `output` is a class or a number; `version` the model's (default 1). `features`: name -> number, text or None; or numbers in the order
    of the model's signature, None or NaN where one is missing. `scores` one per class, in the signature's order. `prediction_id`: made
    (UUIDv7) where absent. `ts` seconds since 1970 or a datetime, default now.
    """

    output: Required[Scalar]
    version: int
    features: Features
    prediction_id: str
    scores: Sequence[float] | NDArray[Any]
    segment: str
    latency_ms: float
    ts: Time


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): it sorts by time."""
    number = time.time_ns() // 1_000_000 << 80 | _random.getrandbits(80) & RANDOM_BITS | VERSION_BITS
    text = number.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def reseed() -> None:
    """Draw a new seed, in a forked child, which would make its parent's ids again."""
    _random.seed(None)


def prediction_value(model: str, prediction_id: str, fields: PredictionFields, form: Format) -> bytes:
    """Return the bytes of a prediction; raises EventInvalid with the field that breaks a rule.

    Text among the features makes it JSON: packed features are float32.
    """
    output = _scalar(fields["output"], "output")
    version = fields.get("version", 1)
    if type(version) is not int or version < 0:
        raise EventInvalid("invalid", f"version must be a whole number from 0, got {version!r} (log_prediction)")
    names_and_numbers = _packed(fields.get("features", ())) if form == "packed" else None
    scores, segment = _scores(fields.get("scores")), fields.get("segment")
    if segment is not None and not isinstance(segment, str):
        raise EventInvalid("invalid", f"segment must be text, got {segment!r} (log_prediction)")
    latency = fields.get("latency_ms")
    latency_ms = None if latency is None else _number(latency, "latency_ms")
    _check_key(model, prediction_id)
    if names_and_numbers is not None:
        names, packed = names_and_numbers
        ts = _seconds(fields.get("ts"))
        return encode_msgpack(
            PackedPrediction(model, version, prediction_id, ts, output, packed, names, scores, segment, latency_ms)
        )
    made = PredictionMade(
        model=model,
        version=version,
        prediction_id=prediction_id,
        output=output,
        features=_plain_features(fields.get("features", ())),
        ts=_seconds(fields.get("ts")),
        scores=scores,
        segment=segment,
        latency_ms=latency_ms,
    )
    return encode_json(made)


def label_value(arrived: LabelArrived, form: Format) -> bytes:
    """Return the bytes of a label, null for one taken back; raises EventInvalid."""
    _check_key(arrived.model, arrived.prediction_id)
    label = None if arrived.label is None else _scalar(arrived.label, "label")
    ts = _seconds(arrived.ts)
    if form == "packed":
        return encode_msgpack(PackedLabel(arrived.model, arrived.prediction_id, label, ts))
    return encode_json(LabelArrived(model=arrived.model, prediction_id=arrived.prediction_id, label=label, ts=ts))


@lru_cache(maxsize=256)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


@lru_cache(maxsize=1024)
def _joined(names: tuple[str, ...]) -> str | None:
    # A newline in a name would split it on the other side.
    return None if any(not isinstance(name, str) or "\n" in name or not name for name in names) else "\n".join(names)


def _packed(features: Features) -> tuple[str, bytes] | None:
    """Return joined names and float32 bytes, or None where only JSON can carry the features."""
    names = ""
    values: Any = features
    if isinstance(features, Mapping):
        joined, values = _joined(tuple(features)), features.values()
        if not joined:
            return None
        names = joined
    elif isinstance(features, np.ndarray):
        # Twice as fast as asking numpy, at the size of a row.
        values = features.tolist()
    elif isinstance(features, str):
        raise EventInvalid("invalid", "features must be a mapping, a list or an array, got text (log_prediction)")
    try:
        packed = _packer(len(features)).pack(*values)
        # One sum finds both NaN (missing, allowed) and infinity; only then is it worth looking at each.
        if not math.isfinite(sum(values)):
            _refuse_infinite(values)
        return names, packed
    except OverflowError:
        raise EventInvalid("non_finite", "features must fit float32, got a larger number (log_prediction)") from None
    except (struct.error, TypeError):
        return _packed_slowly(names, list(values))


def _packed_slowly(names: str, values: list[Any]) -> tuple[str, bytes] | None:
    if any(isinstance(value, str) for value in values):
        return None
    numbers = [math.nan if value is None else _feature(value) for value in values]
    return names, _packer(len(numbers)).pack(*numbers)


def _refuse_infinite(values: Any) -> None:
    if any(math.isinf(value) for value in values):
        raise EventInvalid("non_finite", "features must be finite, got an infinite number (log_prediction)")


def _feature(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise EventInvalid(
            "invalid", f"features must be numbers, text or None, got {type(value).__name__} (log_prediction)"
        ) from None
    if math.isinf(number) or abs(number) > MAX_FLOAT32:
        raise EventInvalid("non_finite", "features must be finite float32, got an infinite or larger number (log_prediction)")
    return number


def _plain_features(features: Features) -> dict[str, FeatureValue] | list[FeatureValue]:
    if isinstance(features, Mapping):
        return {str(name): _plain_feature(value) for name, value in features.items()}
    if isinstance(features, str):
        raise EventInvalid("invalid", "features must be a mapping, a list or an array, got text (log_prediction)")
    return [_plain_feature(value) for value in features]


def _plain_feature(value: Any) -> FeatureValue:
    if value is None or isinstance(value, str):
        return value
    number = _feature(value)
    return None if math.isnan(number) else number


def _scores(scores: Any) -> list[float] | None:
    return None if scores is None else [_number(score, "scores") for score in scores]


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise EventInvalid("invalid", f"{what} must be a number, got {type(value).__name__}") from None
    if not math.isfinite(number):
        raise EventInvalid("non_finite", f"{what} must be finite, got {number}")
    return number


def _scalar(value: Any, what: str) -> Scalar:
    if type(value) not in PLAIN:
        # numpy's scalars are what models return.
        value = value.item() if isinstance(value, np.generic | np.ndarray) and value.size == 1 else value
        if type(value) not in PLAIN:
            raise EventInvalid("invalid", f"{what} must be a class or a number, got {type(value).__name__}")
    if type(value) is float and not math.isfinite(value):
        raise EventInvalid("non_finite", f"{what} must be finite, got {value}")
    plain: Scalar = value
    return plain


def _seconds(ts: Time) -> float:
    if ts is None:
        return time.time()
    return ts.timestamp() if isinstance(ts, datetime) else _number(ts, "ts")


def _check_key(model: Any, prediction_id: Any) -> None:
    if not isinstance(model, str) or not model:
        raise EventInvalid("invalid", f"model must be a name, got {model!r}")
    if not isinstance(prediction_id, str) or not prediction_id:
        raise EventInvalid("invalid", f"prediction_id must be text, got {prediction_id!r}")
