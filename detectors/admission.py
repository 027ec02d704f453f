"""Admission: the rules a prediction or label must meet, one record at a time, with the reason where it does not.

Intake checks whole columns and asks here only for the records that look odd, so these rules are the only statement of what is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..schemas.codecs import PackedPrediction
from ..schemas.config import MonitorConfig
from ..schemas.errors import EventInvalid
from ..schemas.events import MAX_VERSION, LabelArrived, PredictionMade, Signature
from ..schemas.values import FLOAT32_MAX, seconds, taken
from .model import MAX_WHOLE, Model, is_whole, kind_of
from .stream_time import YEAR_2000_MS, YEAR_2100_MS

YEAR_2000_S = 946_684_800.0
MAX_ID_CHARACTERS = 256
MAX_TEXT_BYTES = 256
MAX_LABEL_BYTES = 65_536
MAX_NAME_BYTES = 262_144
MAX_SIGNATURE_CLASSES = 10_000
MODEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}", re.ASCII)


class Admission:
    """The rules of what is admitted; what breaks one raises EventInvalid."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config

    def size(self, value: bytes | None, limit: int) -> None:
        """Check the size of a value."""
        if value is not None and len(value) > limit:
            raise EventInvalid("too_large", f"value must be at most {limit} bytes, got {len(value)}")

    def name(self, model: str, key: bytes | None) -> None:
        """Check the model's name and that the record's key is this name."""
        if MODEL_NAME.fullmatch(model) is None:
            raise EventInvalid("invalid", f"model must be 1 to 200 of A-Z a-z 0-9 . _ -, got {shown(model)}")
        if key is None or key != model.encode():
            raise EventInvalid("invalid", f"key must be the model's name {shown(model)}, got {shown(key)}")

    def ident(self, prediction_id: str) -> None:
        """Check a prediction id."""
        if not 1 <= len(prediction_id) <= MAX_ID_CHARACTERS:
            found = len(prediction_id)
            raise EventInvalid("invalid", f"prediction_id must be 1 to {MAX_ID_CHARACTERS} characters, got {found}")

    def time(self, ts: float | datetime | None, timestamp_ms: int) -> None:
        """Check the record's time stamp (negative where there is none), and an event time against it."""
        if 0 <= timestamp_ms < YEAR_2000_MS:
            raise EventInvalid(
                "invalid", f"record's time stamp must be milliseconds since 1970, after the year 2000, got {timestamp_ms}"
            )
        if timestamp_ms > YEAR_2100_MS:
            raise EventInvalid(
                "future", f"record's time stamp must be milliseconds since 1970, before the year 2100, got {timestamp_ms}"
            )
        if ts is None:
            return
        at = finite("ts", seconds(ts))
        if at < YEAR_2000_S:
            raise EventInvalid("invalid", f"ts must be seconds since 1970 and after the year 2000, got {at}")
        limit = self.config.max_future_s
        if timestamp_ms >= 0 and at - timestamp_ms / 1000.0 > limit:
            ahead = at - timestamp_ms / 1000.0
            raise EventInvalid("future", f"ts must be at most {limit} s after the record's time stamp, got {ahead:.3f} s")

    def prediction(self, event: PredictionMade, key: bytes | None, timestamp_ms: int) -> None:
        """Check all of a prediction that does not depend on its model."""
        self.name(event.model, key)
        self.facts(event, timestamp_ms)
        self.features(event.features)

    def facts(self, event: PredictionMade | PackedPrediction, timestamp_ms: int) -> None:
        """Check all of a prediction but its features and its model's name."""
        self.ident(event.prediction_id)
        if not 1 <= event.version <= MAX_VERSION:
            raise EventInvalid("invalid", f"version must be 1 to {MAX_VERSION}, got {shown(event.version)}")
        self.time(event.ts, timestamp_ms)
        if event.latency_ms is not None:
            finite("latency_ms", event.latency_ms)
        for score in event.scores or ():
            finite("scores", score)
        self.value("output", event.output)

    def features(self, features: Any) -> None:
        """Check number, size and values of features."""
        self.width(len(features))
        values: Iterable[Any] = features
        if isinstance(features, dict):
            values = features.values()
            self.names(features)
        for value in values:
            if isinstance(value, float | int):
                finite("features", value)

    def width(self, count: int) -> None:
        """Check the number of features."""
        if count > self.config.max_features:
            raise EventInvalid("too_large", f"features must be at most {self.config.max_features}, got {count}")

    def names(self, names: Iterable[str]) -> None:
        """Check the names of features."""
        sizes_bytes, limit = [len(name.encode()) for name in names], self.config.max_feature_name_bytes
        longest, size_bytes = max(sizes_bytes, default=0), sum(sizes_bytes)
        if longest > limit:
            raise EventInvalid("too_large", f"a feature's name must be at most {limit} bytes, got {longest}")
        if size_bytes > MAX_NAME_BYTES:
            raise EventInvalid("too_large", f"feature names must be at most {MAX_NAME_BYTES} bytes, got {size_bytes}")

    def value(self, what: str, value: object) -> None:
        """Check an output or label by itself."""
        if isinstance(value, str):
            if not 1 <= len(value.encode()) <= MAX_TEXT_BYTES:
                raise EventInvalid("invalid", f"{what} must be 1 to {MAX_TEXT_BYTES} bytes of text, got {len(value.encode())}")
        elif value is not None:
            taken(value, "output", what)

    def output(self, value: Any, width: int | None, model: Model) -> None:
        """Check an output of its kind, and the number of its scores (None without any), against what is known of the model."""
        if model.kind is not None and kind_of(value) != model.kind:
            raise EventInvalid("invalid", f"output must be a {model.kind} as this model's outputs are, got {shown(value)}")
        if width is not None and model.reserved and width != model.reserved and not (width == 1 and model.is_binary):
            raise EventInvalid("invalid", f"scores must be one per class, {model.reserved}, got {width}")
        if model.registered and model.task == "classification" and value not in model.lookup:
            raise EventInvalid("invalid", f"output must be a class of the signature, got {shown(value)}")

    def label(self, event: LabelArrived, key: bytes | None, timestamp_ms: int) -> None:
        """Check all of a label that does not depend on its model."""
        self.name(event.model, key)
        self.ident(event.prediction_id)
        self.time(event.ts, timestamp_ms)
        self.value("label", event.label)

    def signature(self, signature: Signature) -> None:
        """Check a registered signature: sizes, distinct names, classes of one kind."""
        names, classes = signature.features, signature.classes
        self.features(dict.fromkeys(names))
        if len(set(names)) != len(names):
            raise EventInvalid("invalid", "signature.features must be distinct names, got one twice")
        if len(classes) > MAX_SIGNATURE_CLASSES:
            raise EventInvalid("too_large", f"signature.classes must be at most {MAX_SIGNATURE_CLASSES}, got {len(classes)}")
        if (signature.task == "classification") != bool(classes):
            raise EventInvalid("invalid", f"signature.classes must be given for classification alone, got {len(classes)}")
        if len({kind_of(value) for value in classes}) > 1 or len(set(classes)) != len(classes):
            raise EventInvalid("invalid", "signature.classes must be distinct and of one kind")
        if sum(len(value.encode()) for value in classes if isinstance(value, str)) > MAX_NAME_BYTES:
            raise EventInvalid("too_large", f"signature.classes must be at most {MAX_NAME_BYTES} bytes together")
        for value in classes:
            self.value("signature.classes", value)
            if isinstance(value, int | float) and abs(value) > MAX_WHOLE:
                raise EventInvalid("invalid", f"a class must be within 2**53, got {shown(value)}")
        _check_categories(signature)


def _check_categories(signature: Signature) -> None:
    unknown = sorted(set(signature.categories) - set(signature.features))
    if unknown:
        raise EventInvalid("invalid", f"signature.categories must be of its features, got {shown(unknown[0])}")
    size_bytes = sum(len(text.encode()) for texts in signature.categories.values() for text in texts)
    if size_bytes > MAX_NAME_BYTES:
        raise EventInvalid("too_large", f"signature.categories must be at most {MAX_NAME_BYTES} bytes together, got {size_bytes}")
    for name, texts in signature.categories.items():
        if len(set(texts)) != len(texts):
            raise EventInvalid("invalid", f"signature.categories of {shown(name)} must be distinct texts, got one twice")


def label_problem(value: Any, model: Model) -> str | None:
    """Return why `value` cannot be the label of a model's output, or None where it can."""
    if model.kind is not None and kind_of(value) != model.kind:
        return f"label must be a {model.kind} as this model's outputs are, got {shown(value)}"
    # A label that no class of the signature is shows that the model is wrong: it is counted, not refused.
    if model.task == "regression" or model.registered:
        return None
    if model.kind == "number" and not is_whole(value):
        return f"label must be a whole number as this model's classes are, got {shown(value)}"
    return None


def finite(what: str, value: float) -> float:
    """Return a number that float32 can hold; raises EventInvalid for any other."""
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        raise EventInvalid("non_finite", f"{what} must be finite and within float32, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """Return a short, printable form of a value for a message."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
