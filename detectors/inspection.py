"""Inspection: one odd record at a time. It is read leniently, judged by the rules of admission, and admitted or refused with a reason."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec.structs import astuple

from ..schemas.codecs import decode
from ..schemas.config import MonitorConfig
from ..schemas.dead_letters import DeadLetter
from ..schemas.errors import EventInvalid
from ..schemas.events import LabelArrived, ModelEvent, ModelRegistered, PredictionMade
from ..schemas.layouts import Layout, layout
from .admission import MAX_LABEL_BYTES, Admission
from .model import Model
from .model_table import ModelTable
from .over_limit import LimitNotes, OverLimit
from .pieces import Piece
from .room import size_of

FAULTS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
PREDICTION_FIELDS = frozenset(PredictionMade.__struct_fields__) | {"type"}
LABEL_FIELDS = frozenset(LabelArrived.__struct_fields__) | {"type"}


class Odd(Exception):
    """The mark of a record that needs inspection."""


class Inspector:
    """The judge of odd records; `refusals` holds dead letters until they are taken, each after when it was refused and its own order."""

    def __init__(self, config: MonitorConfig, table: ModelTable, partition: int, limits: LimitNotes) -> None:
        self.limits = limits
        self.config = config
        self.table = table
        self.partition = partition
        self.rules = Admission(config)
        self.refusals: list[tuple[int, int, DeadLetter]] = []

    def prediction(self, piece: Piece, at: int) -> tuple[PredictionMade | None, bytes]:
        """Return a sound prediction and its features in the layout of its model, which is learned where new; None where refused."""
        try:
            event = self._judge_prediction(piece, at)
            return event, self._features(event, piece, at)
        except OverLimit as problem:
            self.refuse_over(piece, at, problem)
        except EventInvalid as problem:
            self.refuse(piece, at, problem.disposition, str(problem))
        except FAULTS as fault:
            self.refuse(piece, at, "processing_error", f"{type(fault).__name__}: {fault}")
        return None, b""

    def sound_prediction(self, piece: Piece, at: int) -> bool:
        """Return True for a prediction that breaks no rule; refuse it otherwise."""
        try:
            self._judge_prediction(piece, at)
        except EventInvalid as problem:
            self.refuse(piece, at, problem.disposition, str(problem))
            return False
        return True

    def label(self, piece: Piece, at: int) -> LabelArrived | None:
        """Return a sound label, None where it is refused."""
        source, value = piece.source, piece.source.values[at]
        try:
            self.rules.size(value, min(self.config.max_value_bytes, MAX_LABEL_BYTES))
            event: LabelArrived = decode(value, LabelArrived, _where(piece, at))
            self.rules.label(event, source.keys[at], source.timestamps_ms[at])
            has_unknown = _has_unknown(value, LABEL_FIELDS)
        except EventInvalid as problem:
            self.refuse(piece, at, _disposition(problem), str(problem))
            return None
        slot = self.table.slots.get(event.model, -1)
        order = int(piece.order[at - piece.start])
        if has_unknown and slot >= 0 and self.table.models[slot].born < order:
            self.table.count(order, slot, "unknown_fields")
        return event

    def model_event(self, piece: Piece, at: int) -> ModelEvent | None:
        """Return a sound event of the models topic, None where it is refused."""
        try:
            self.rules.size(piece.source.values[at], self.config.max_value_bytes)
            event: ModelEvent = decode(piece.source.values[at], ModelEvent, _where(piece, at))
            self.rules.name(event.model, piece.source.keys[at])
            if isinstance(event, ModelRegistered):
                self.rules.signature(event.signature)
            return event
        except EventInvalid as problem:
            self.refuse(piece, at, _disposition(problem), str(problem))
        except FAULTS as fault:
            self.refuse(piece, at, "processing_error", f"{type(fault).__name__}: {fault}")
        return None

    def refuse_over(self, piece: Piece, at: int, problem: OverLimit | None) -> None:
        """Make a dead letter of a record that a bound refuses, and note the bound."""
        if problem is not None:
            self.limits.note(int(piece.order[at - piece.start]), problem.setting, str(problem))
            self.refuse(piece, at, problem.disposition, str(problem))

    def mark(self) -> tuple[int, int, int]:
        """Return how much was refused, noted and counted so far, for `return_to`."""
        return len(self.refusals), len(self.limits.noted), len(self.table.increments)

    def return_to(self, mark: tuple[int, int, int]) -> None:
        """Take back what was refused, noted and counted since, because its records are looked at once more."""
        refused, noted, counted = mark
        del self.refusals[refused:]
        del self.limits.noted[noted:]
        self.table.uncount(counted)

    def refuse(self, piece: Piece, at: int, disposition: str, message: str) -> None:
        """Make a dead letter of a record."""
        order = int(piece.order[at - piece.start])
        self.refusals.append((order, order, self.letter(piece, at, disposition, message)))

    def letter(self, piece: Piece, at: int, disposition: str, message: str) -> DeadLetter:
        """Return the dead letter of a record, its bytes unchanged."""
        source = piece.source
        return DeadLetter(
            topic=piece.topic,
            partition=self.partition,
            offset=source.offsets[at],
            timestamp_ms=source.timestamps_ms[at],
            key=source.keys[at],
            value=source.values[at],
            headers=source.headers(at),
            disposition=disposition,
            message=message,
        )

    def _judge_prediction(self, piece: Piece, at: int) -> PredictionMade:
        source, value = piece.source, piece.source.values[at]
        self.rules.size(value, self.config.max_value_bytes)
        try:
            event: PredictionMade = decode(value, PredictionMade, _where(piece, at))
        except EventInvalid as problem:
            raise EventInvalid(_disposition(problem), str(problem)) from problem
        self.rules.prediction(event, source.keys[at], source.timestamps_ms[at])
        slot = self.table.slots.get(event.model)
        if slot is not None:
            model = self.table.models[slot]
            self.rules.output(event.output, None if event.scores is None else len(event.scores), model)
            if isinstance(event.features, list) and model.layout is not None and len(event.features) != model.layout.width:
                found = len(event.features)
                raise EventInvalid("invalid", f"features must be {model.layout.width} in the signature's order, got {found}")
        return event

    def _features(self, event: PredictionMade, piece: Piece, at: int) -> bytes:
        order = int(piece.order[at - piece.start])
        has_unknown = _has_unknown(piece.source.values[at], PREDICTION_FIELDS)
        if event.model not in self.table.slots:
            self._admit(event)
        slot = self.table.slot(event.model, order)
        model = self.table.models[slot]
        if model.layout is None:
            self.table.learn(slot, event.output, len(event.scores or ()), _layout_of(event))
        if has_unknown:
            self.table.count(order, slot, "unknown_fields")
        values, misplaced = _aligned(event, model)
        if misplaced:
            self.table.count(order, slot, "misplaced_features")
        assert model.layout is not None
        return model.layout.align(values)

    def _admit(self, event: PredictionMade) -> None:
        """Refuse a new model that there is no room for."""
        size, room = size_of(len(event.features), len(event.scores or ())), self.table.room
        setting = room.lacks(size)
        if setting is not None:
            room.want(size)
            # Not by way of a name: a frame that holds the error it raised keeps the batch until garbage is collected.
            raise room.over(setting, event.model)


def no_nan(known: Layout, features: Any) -> bytes:
    """Return float64 bytes of decoded features; raises Odd where one is NaN, which only packed features may be."""
    values = astuple(features)
    if any(isinstance(value, float) and math.isnan(value) for value in values):
        raise Odd
    return known.align(values)


def _layout_of(event: PredictionMade) -> Layout:
    features = event.features
    if isinstance(features, dict):
        return layout(tuple(features), tuple(not isinstance(value, str) for value in features.values()))
    return layout(tuple(str(at) for at in range(len(features))), tuple(not isinstance(value, str) for value in features))


def _aligned(event: PredictionMade, model: Model) -> tuple[list[Any], bool]:
    """Return the values in the order of the layout, and whether there was a feature or a text that has no place in it."""
    known, features = model.layout, event.features
    assert known is not None
    values: list[Any]
    if isinstance(features, dict):
        values = [features.get(name) for name in known.names]
        extra = len(features) > len(known.names) or any(name not in known.name_set for name in features)
    else:
        values, extra = list(features), False
    wrong = any(isinstance(value, str) and number for value, number in zip(values, known.numeric, strict=True))
    return values, extra or wrong


def _has_unknown(value: bytes | None, fields: frozenset[str]) -> bool:
    """Return True where a decodable event has fields that its type has not; raises EventInvalid where the name of one is no text."""
    assert value is not None
    if 0x90 <= value[0] <= 0x9F or value[0] in (0xDC, 0xDD):
        return False
    try:
        if value[0] & 0x80:
            return not set(msgspec.msgpack.decode(value, type=dict[str, msgspec.Raw])) <= fields
        found = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        if "specversion" in found and "data" in found and "prediction_id" not in found:
            found = msgspec.json.decode(found["data"], type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return True
    except UnicodeDecodeError as problem:
        # The decoder of the event passes over unknown names without reading them.
        raise EventInvalid("malformed", f"field names must be UTF-8: {problem}") from problem
    return not set(found) <= fields


def _disposition(problem: EventInvalid) -> str:
    # A literal such as 1e999 is well-formed JSON; the decoder refuses it because no float holds it.
    return "non_finite" if problem.disposition == "malformed" and "Number out of range" in str(problem) else problem.disposition


def _where(piece: Piece, at: int) -> str:
    return f"{piece.topic} offset {piece.source.offsets[at]}"
