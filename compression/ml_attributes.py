"""The attributes of one ai.onnx.ml node, read as arrays; what is not of the kind or length that is asked for is refused by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, numpy_helper

from ..schemas.errors import ArtifactInvalid
from ..schemas.plain_text import one_line, shown
from .onnx_checks import describe

Whole = NDArray[np.int64]
Numbers = NDArray[np.float64]
_TEXT_LENGTH = 10_000


class Attributes:
    """The attributes of a node, by name; each way to read one raises ArtifactInvalid where it is not what is asked for."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self._found: dict[str, AttributeProto] = {}
        for attribute in node.attribute:
            if attribute.name in self._found:
                raise ArtifactInvalid(f"{describe(node)}: attribute {shown(attribute.name)} must be there once, got two")
            self._found[attribute.name] = attribute

    def has(self, name: str) -> bool:
        """Return whether the attribute is there."""
        return name in self._found

    def invalid(self, name: str, rule: str, got: object) -> ArtifactInvalid:
        """Return the error that says which rule attribute `name` breaks."""
        return ArtifactInvalid(f"{describe(self.node)}: attribute {shown(name)} must {rule}, got {shown(str(got))}")

    def whole(self, name: str, default: int) -> int:
        """Return a whole number."""
        return int(self._one(name, AttributeProto.INT).i) if name in self._found else default

    def number(self, name: str, default: float) -> float:
        """Return a number that is finite."""
        if name not in self._found:
            return default
        value = float(self._one(name, AttributeProto.FLOAT).f)
        if not math.isfinite(value):
            raise self.invalid(name, "be finite", value)
        return value

    def text(self, name: str, choices: Sequence[str]) -> str:
        """Return a word, one of `choices`; the first of them is the default."""
        if name not in self._found:
            return choices[0]
        value = self._text(name, self._one(name, AttributeProto.STRING).s)
        if value not in choices:
            raise self.invalid(name, f"be one of {', '.join(choices)}", value)
        return value

    def wholes(self, name: str, length: int | None = None) -> Whole:
        """Return a list of whole numbers, of `length` where one is given; empty where it is not there."""
        values = np.array(self._one(name, AttributeProto.INTS).ints if name in self._found else (), np.int64)
        self._check_length(name, len(values), length)
        return values

    def numbers(self, name: str, length: int | None = None) -> Numbers:
        """Return a list of finite numbers, also one that is stored as tensor `<name>_as_tensor`; empty where it is not there."""
        twin = f"{name}_as_tensor"
        if name in self._found and twin in self._found:
            raise self.invalid(twin, f"not be there beside {name}", "both")
        values = self.tensor(twin, "f").ravel() if twin in self._found else self.listed(name)
        self._check_finite(name, values)
        self._check_length(name, len(values), length)
        return values

    def listed(self, name: str) -> Numbers:
        """Return a list of numbers, of which some may be NaN or endless; empty where it is not there."""
        # A NaN that signals makes numpy warn.
        with np.errstate(invalid="ignore"):
            return np.array(self._one(name, AttributeProto.FLOATS).floats if name in self._found else (), np.float64)

    def texts(self, name: str, length: int | None = None) -> list[str]:
        """Return a list of texts; empty where it is not there."""
        held = self._one(name, AttributeProto.STRINGS).strings if name in self._found else ()
        self._check_length(name, len(held), length)
        return [self._text(name, value) for value in held]

    def tensor(self, name: str, kinds: str, *, gaps: bool = False) -> NDArray[Any]:
        """Return a tensor whose numpy kind is one of `kinds`, numbers without NaN unless it may have `gaps`."""
        try:
            values = np.asarray(numpy_helper.to_array(self._one(name, AttributeProto.TENSOR).t))
        except (ValueError, TypeError, OverflowError) as problem:
            raise self.invalid(name, "be readable", one_line(problem)) from problem
        if values.dtype.kind not in kinds:
            raise self.invalid(name, f"be of a kind in {kinds!r}", values.dtype)
        if values.dtype.kind == "f" and not gaps:
            self._check_finite(name, values)
        with np.errstate(invalid="ignore"):
            return values.astype(np.float64) if values.dtype.kind == "f" else values

    def _one(self, name: str, kind: int) -> AttributeProto:
        attribute = self._found.get(name)
        if attribute is None or attribute.type != kind:
            got = "none" if attribute is None else AttributeProto.AttributeType.Name(attribute.type)
            raise self.invalid(name, f"be {AttributeProto.AttributeType.Name(kind)}", got)
        return attribute

    def _text(self, name: str, value: bytes) -> str:
        if len(value) > _TEXT_LENGTH:
            raise self.invalid(name, f"be texts of at most {_TEXT_LENGTH} bytes", len(value))
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise self.invalid(name, "be text in UTF-8", value[:50]) from None

    def _check_length(self, name: str, found: int, length: int | None) -> None:
        if length is not None and found != length:
            raise self.invalid(name, f"have {length} entries", found)

    def _check_finite(self, name: str, values: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            raise self.invalid(name, "hold finite numbers alone", values[~np.isfinite(values)].ravel()[0])
