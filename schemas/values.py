"""What each kind of value means as a feature, an output, a label and a version: one table for every door (SDK, JSON, msgpack, CSV).

A door asks `feature`, `output`, `label` or `version` for values in Python, and `cell` for the text in a table. numpy, pandas, torch
and the like are known by what their objects can do: none of them is imported here. Times have a rule beside the table: `seconds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NoReturn

from .errors import EventInvalid
from .events import MAX_VERSION, FeatureValue, Scalar

FLOAT32_MAX = 3.4028234663852886e38
LEAST_WHOLE, MOST_WHOLE = -(2**63), 2**64 - 1
"""Whole numbers that msgpack holds; events and state hold no others. Classes are narrower: they must be exact as float64."""

Role = Literal["feature", "output", "label", "version"]
Kind = Literal["nothing", "truth", "whole", "huge", "number", "nan", "infinite", "text", "time", "other"]
Meaning = Callable[[Any], Any]

MOST_DIGITS = 400
MISSING_WORDS = frozenset({"", "na", "nan", "null", "none", "<na>", "nat"})
TRUTH_WORDS = {"true": True, "false": False}
_PLAIN = frozenset({bool, int, float, str})
_NOTHING_NAMES = frozenset({"NAType", "NaTType"})


def taken(value: object, role: Role, name: str | None = None) -> Any:
    """Return what a value means in a role, in Python's own types; raises EventInvalid, which calls it `name` (by default the role)."""
    kind, plain = recognised(value)
    meaning = MEANINGS[kind][role]
    if isinstance(meaning, str):
        _refuse(kind, name or _NAMES[role], meaning, value)
    found = meaning(plain)
    if role == "feature" and isinstance(found, float) and not abs(found) <= FLOAT32_MAX:
        _refuse("infinite", name or "features", "be finite and within float32", value)
    if role in ("output", "label") and kind == "number" and not abs(found) <= FLOAT32_MAX:
        _refuse("infinite", name or role, "be finite and within float32", value)
    if role == "version" and not 1 <= found <= MAX_VERSION:
        _refuse(kind, name or role, f"be 1 to {MAX_VERSION}", value)
    return found


def feature(value: object) -> FeatureValue:
    """Return a feature: a float, a text, or None where it is missing; raises EventInvalid."""
    found: FeatureValue = taken(value, "feature")
    return found


def output(value: object) -> Scalar:
    """Return an output: a class or a number; raises EventInvalid."""
    found: Scalar = taken(value, "output")
    return found


def label(value: object) -> Scalar | None:
    """Return a label: a class or a number, None where it takes back an earlier one; raises EventInvalid."""
    found: Scalar | None = taken(value, "label")
    return found


def version(value: object) -> int:
    """Return a model's version; raises EventInvalid."""
    found: int = taken(value, "version")
    return found


def cell(text: str) -> Scalar | None:
    """Return what a cell of a table says, the same in every role: a whole number, a number, True or False, None where missing, or text.

    A column of labels or outputs that mixes kinds is text as a whole: `taken` is then asked for the cells as they stand.
    """
    bare = text.strip()
    lower = bare.lower()
    if lower in MISSING_WORDS:
        return None
    if lower in TRUTH_WORDS:
        return TRUTH_WORDS[lower]
    # Python's own spelling of numbers would take "1_000" for a number.
    if "_" not in bare:
        for parse in (int, float):
            try:
                return parse(bare)
            except ValueError:
                continue
    return bare


def recognised(value: object) -> tuple[Kind, Any]:
    """Return the kind of a value, and the value in Python's own type."""
    if type(value) not in _PLAIN:
        value = _plain(value)
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int):
        return ("whole" if LEAST_WHOLE <= value <= MOST_WHOLE else "huge"), value
    if isinstance(value, float):
        return ("nan" if math.isnan(value) else "infinite" if math.isinf(value) else "number"), value
    if isinstance(value, str):
        return "text", value
    if value is None:
        return "nothing", None
    return ("time" if isinstance(value, date | clock_time | timedelta) else "other"), value


def seconds(ts: float | datetime) -> float:
    """Return seconds since 1970; a time without a zone is UTC, whatever the zone of the machine."""
    if isinstance(ts, datetime):
        return (ts if ts.tzinfo is not None else ts.replace(tzinfo=UTC)).timestamp()
    return float(ts)


def time_of(ts: object, name: str = "ts") -> float:
    """Return seconds since 1970 of a number, a datetime, or what numpy and pandas make of them; raises EventInvalid for anything else."""
    kind, plain = recognised(ts)
    if kind in ("whole", "number") or (kind == "time" and isinstance(plain, datetime)):
        return seconds(plain)
    wanted = "finite" if kind in ("nan", "infinite", "huge") else "seconds since 1970 or a datetime"
    _refuse(kind, name, f"be {wanted}", ts)


def _plain(value: object) -> Any:
    """Return a foreign value as Python's own, and what is no single value as it is."""
    if value is None or type(value).__name__ in _NOTHING_NAMES:
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        # A member of an Enum that is a text is its value, not its name.
        return str.__str__(value)
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else _number(value)
    if isinstance(value, date | clock_time | timedelta):
        return value
    return _single(value)


def _of_decimal(value: Decimal) -> int | float:
    if value.is_nan():
        return math.nan
    # As a whole number, one with a large exponent would fill the memory.
    if value.is_infinite() or value.adjusted() > MOST_DIGITS:
        return math.copysign(math.inf, value)
    return int(value) if value == value.to_integral_value() else float(value)


def _single(value: Any) -> Any:
    """Return the one value of a scalar or array of numpy, torch, pandas and the like; anything else as it is."""
    try:
        if (kind := type(value).__name__) in ("datetime64", "timedelta64"):
            # In nanoseconds it would give a whole number instead of a time.
            value = value.astype(f"{kind}[us]")
        item = value.item() if callable(getattr(value, "item", None)) else value
        if type(item) in _PLAIN or item is None or isinstance(item, date | clock_time | timedelta):
            return item
        return float(item) if not isinstance(item, complex) and hasattr(item, "__float__") else value
    except (TypeError, ValueError, OverflowError, RuntimeError, ArithmeticError):
        return value


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _itself(value: Any) -> Any:
    return value


def _missing(value: Any) -> None:
    return None


def _refuse(kind: Kind, name: str, rule: str, value: object) -> NoReturn:
    text = ascii(value) if kind not in ("huge", "other") else type(value).__name__
    if isinstance(value, int) and value.bit_length() > 64:
        text = f"a whole number of {value.bit_length()} bits"
    beyond = kind in ("nan", "infinite") or (kind == "huge" and abs(recognised(value)[1]) > FLOAT32_MAX)
    raise EventInvalid(
        "non_finite" if beyond else "invalid", f"{name} must {rule}, got {text if len(text) <= 80 else text[:77] + '...'}"
    )


_NAMES: dict[Role, str] = {"feature": "features", "output": "output", "label": "label", "version": "version"}
_FEATURE = "be numbers, truth values, text, or None where missing"
_SCALAR = "be a class or a number"
_FINITE = "be finite and within float32"
_IN_64_BITS = "be a whole number within 64 bits; give a larger one as a text where it is a class, with a point where it is a number"
_WHOLE = "be a whole number"

MEANINGS: dict[Kind, dict[Role, Meaning | str]] = {
    "nothing": {"feature": _missing, "output": _SCALAR, "label": _missing, "version": _WHOLE},
    "truth": {"feature": _number, "output": _itself, "label": _itself, "version": _WHOLE},
    "whole": {"feature": _number, "output": _itself, "label": _itself, "version": _itself},
    "huge": {"feature": _number, "output": _IN_64_BITS, "label": _IN_64_BITS, "version": _WHOLE},
    "number": {"feature": _itself, "output": _itself, "label": _itself, "version": _WHOLE},
    "nan": {"feature": _missing, "output": _FINITE, "label": _FINITE, "version": _WHOLE},
    "infinite": {"feature": _FINITE, "output": _FINITE, "label": _FINITE, "version": _WHOLE},
    "text": {"feature": _itself, "output": _itself, "label": _itself, "version": _WHOLE},
    "time": {"feature": _FEATURE, "output": _SCALAR, "label": _SCALAR, "version": _WHOLE},
    "other": {"feature": _FEATURE, "output": _SCALAR, "label": _SCALAR, "version": _WHOLE},
}
"""A text is the rule that a value of this kind breaks in this role. A truth value is 1.0 or 0.0 as a feature, and a class elsewhere."""
