"""Bytes to events and back: JSON, msgpack, and msgpack with features packed as float32.

Readers tell the three apart by the first byte, which is never ambiguous (`{` opens a JSON object; a msgpack array or map never starts
with it): reading a record's headers costs as much as half its decoding. The `content-type` header is what writers set and what
error messages quote.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import msgspec

from .errors import EventInvalid
from .events import Event, FeatureValue, LabelArrived, PredictionMade, Scalar

JSON = "application/json"
MSGPACK = "application/msgpack"

_json_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


class PackedPrediction(msgspec.Struct, frozen=True, array_like=True):
    """A prediction on the wire's fast path: a msgpack array, features as little-endian float32, NaN for a missing one.

    `names` holds the feature names joined by newlines, or is empty where features are in the signature's order.
    """

    model: str
    version: int
    prediction_id: str
    ts: float
    output: Scalar
    features: bytes
    names: str = ""
    scores: list[float] | None = None
    segment: str | None = None
    latency_ms: float | None = None


class PackedLabel(msgspec.Struct, frozen=True, array_like=True):
    """A label on the wire's fast path: a msgpack array."""

    model: str
    prediction_id: str
    label: Scalar | None
    ts: float | None = None


class CloudEventJson(msgspec.Struct, frozen=True):
    """A CloudEvent in structured mode; `data` is the event."""

    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw


def encode_json(event: msgspec.Struct) -> bytes:
    """Return the event as one line of JSON; equal events give equal bytes."""
    return _json_encoder.encode(event)


def encode_msgpack(event: msgspec.Struct) -> bytes:
    """Return the event as a msgpack map (an array for the packed forms)."""
    return _msgpack_encoder.encode(event)


def pack_features(values: list[float | None]) -> bytes:
    """Return float32 bytes, NaN for None."""
    return struct.pack(f"<{len(values)}f", *(float("nan") if value is None else value for value in values))


@cache
def _json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def decode(value: bytes | None, kind: Any, where: str) -> Any:
    """Return the event of type (or union) `kind` in `value`: JSON, msgpack map, packed array, or structured CloudEvent.

    Raises EventInvalid with the disposition, the reason and `where`.
    """
    if not value:
        raise EventInvalid("malformed", f"value must be an event, got {'no value' if value is None else 'no bytes'} ({where})")
    first = value[0]
    try:
        if first in (0x7B, 0x20, 0x0A, 0x0D, 0x09):
            return _decode_json(value, kind)
        if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
            return _msgpack_decoder(kind).decode(value)
        if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
            return _decode_packed(value, kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, struct.error) as problem:
        raise EventInvalid("malformed", f"value must be {_name(kind)}: {problem} ({where})") from problem
    raise EventInvalid("malformed", f"value must be JSON or msgpack, got a first byte of {first:#04x} ({where})")


def _decode_json(value: bytes, kind: Any) -> Any:
    try:
        return _json_decoder(kind).decode(value)
    except msgspec.ValidationError:
        try:
            wrapped = _json_decoder(CloudEventJson).decode(value)
        except msgspec.DecodeError:
            wrapped = None
        if wrapped is None:
            raise
        return _json_decoder(kind).decode(wrapped.data)


def _decode_packed(value: bytes, kind: Any) -> Any:
    if kind is PredictionMade:
        return unpack_prediction(_msgpack_decoder(PackedPrediction).decode(value))
    if kind is LabelArrived:
        packed = _msgpack_decoder(PackedLabel).decode(value)
        return LabelArrived(model=packed.model, prediction_id=packed.prediction_id, label=packed.label, ts=packed.ts)
    raise msgspec.DecodeError("a msgpack array is no event of this topic")


def unpack_prediction(packed: PackedPrediction) -> PredictionMade:
    """Return the event of a packed prediction; raises struct.error where the bytes are no whole float32 numbers."""
    numbers = struct.unpack(f"<{len(packed.features) // 4}f", packed.features)
    values: list[FeatureValue] = [None if number != number else number for number in numbers]
    features: dict[str, FeatureValue] | list[FeatureValue] = values
    if packed.names:
        names = packed.names.split("\n")
        if len(names) != len(values):
            raise msgspec.DecodeError(f"names must be as many as the features, got {len(names)} and {len(values)}")
        features = dict(zip(names, values, strict=True))
    return PredictionMade(
        model=packed.model,
        version=packed.version,
        prediction_id=packed.prediction_id,
        output=packed.output,
        features=features,
        ts=packed.ts,
        scores=packed.scores,
        segment=packed.segment,
        latency_ms=packed.latency_ms,
    )


def type_name(event: Event) -> str:
    """Return the CloudEvents type, such as `driftloop.drift_opened.v1`."""
    return f"driftloop.{event.__struct_config__.tag}.v1"


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind).replace("driftloop.schemas.events.", "")
