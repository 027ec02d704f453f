"""A row of features as a model takes it: numbers as they are, categories as the place of their text, what is missing as NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from . import values
from .errors import EventInvalid
from .events import FeatureValue, Signature
from .plain_text import shown

UNKNOWN_CODE = -1.0


class FeatureRows:
    """The way of a signature from features as events carry them to rows of numbers."""

    def __init__(self, signature: Signature) -> None:
        self.names = signature.features
        self._codes = {
            name: {text: float(place) for place, text in enumerate(texts)} for name, texts in signature.categories.items()
        }

    def row(self, features: Mapping[str, FeatureValue] | Sequence[FeatureValue]) -> list[float]:
        """Return the numbers of one row, given by name (what is not there is missing) or in the signature's order.

        Raises EventInvalid for a list of another length, a text where a number belongs, or a value that is no feature.
        """
        if isinstance(features, Mapping):
            if features and not any(name in features for name in self.names):
                raise EventInvalid("invalid", f"features must have names of the signature, got {shown(next(iter(features)))}")
            given = [features.get(name) for name in self.names]
        elif len(features) != len(self.names):
            raise EventInvalid("invalid", f"features must be {len(self.names)} in the signature's order, got {len(features)}")
        else:
            given = list(features)
        return [self._number(name, value) for name, value in zip(self.names, given, strict=True)]

    def _number(self, name: str, value: FeatureValue) -> float:
        found = value if type(value) is float else values.feature(value)
        if found is None:
            return math.nan
        codes = self._codes.get(name)
        if codes is not None:
            return _code(found, codes)
        if isinstance(found, str):
            raise EventInvalid("invalid", f"feature must be a number, got text in {shown(name)}")
        return found


def _code(value: float | str, codes: dict[str, float]) -> float:
    """Return the place of a category; a whole number stands for its digits, as CSV and other languages may carry it."""
    if isinstance(value, float):
        if math.isnan(value):
            return value
        value = str(int(value)) if value.is_integer() else str(value)
    return codes.get(value, UNKNOWN_CODE)
