"""Features as programs hold them (a mapping, a row, an array, a frame of one row) as names and numbers for the SDK's events.

Frames, series and records are known by what they can do: neither pandas nor polars, pyarrow or torch is imported.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..detectors.admission import Admission
from ..schemas.errors import EventInvalid
from ..schemas.events import FeatureValue
from ..schemas.values import FLOAT32_MAX, feature

Features = Mapping[str, FeatureValue] | Sequence[FeatureValue] | NDArray[Any]
PLAIN_NUMBERS = frozenset({float, int, bool, *(np.dtype(code).type for code in "?bhilqBHILQefd")})
"""Types that `struct` packs as the table of values has it; all others are looked up there."""
TEXTS = (str, bytes, bytearray, memoryview)
NUMBER_ARRAYS = "biuf"


def packed(features: Any, rules: Admission) -> tuple[str, bytes] | None:
    """Return joined names and float32 bytes, or None where only JSON can carry the features; raises EventInvalid.

    `features` is a mapping or a list, see `one_row`.
    """
    names, values = "", features
    if type(features) is dict or isinstance(features, Mapping):
        joined, values = _joined(tuple(features), rules), features.values()
        if not joined:
            return None
        names = joined
    count = len(features)
    rules.width(count)
    if not PLAIN_NUMBERS.issuperset(map(type, values)):
        found = [feature(value) for value in values]
        if any(isinstance(value, str) for value in found):
            return None
        values = [math.nan if value is None else value for value in found]
    packer = _packer(count)
    try:
        raw = packer.pack(*values)
    except (OverflowError, struct.error):
        # All are numbers: what cannot be packed is too large, a float or a whole number.
        raise EventInvalid("non_finite", "features must be finite and within float32, got a larger number") from None
    # One sum finds both NaN (missing, allowed) and infinity; only then is it worth looking at each.
    numbers = packer.unpack(raw)
    if not math.isfinite(sum(numbers)) and any(map(math.isinf, numbers)):
        raise EventInvalid("non_finite", "features must be finite and within float32, got an infinite number")
    return names, raw


def plain(features: Any, rules: Admission) -> dict[str, FeatureValue] | list[FeatureValue]:
    """Return features as JSON carries them; raises EventInvalid.

    `features` is a mapping or a list, see `one_row`.
    """
    rules.width(len(features))
    if not isinstance(features, Mapping):
        return [_plain_value(value) for value in features]
    _joined(tuple(features), rules)
    texts = set(map(type, features)) == {str}
    found = {name if texts else _name(name): _plain_value(value) for name, value in features.items()}
    if len(found) != len(features):
        raise EventInvalid("invalid", "features must have distinct names, got one twice")
    return found


def _plain_value(value: Any) -> FeatureValue:
    # Most are floats: the table of values would cost six times as much.
    return value if type(value) is float and -FLOAT32_MAX <= value <= FLOAT32_MAX else feature(value)


def one_row(features: Any, what: str = "features") -> Any:
    """Return a mapping, or a sequence of values in order, of whatever holds one row; raises EventInvalid for more rows, fewer, or none."""
    if type(features) is dict or type(features) is list:
        return features
    if isinstance(features, np.ndarray | np.void):
        return _row_of_array(features, what)
    if isinstance(features, Mapping | tuple):
        return features
    if isinstance(features, (*TEXTS, Set)):
        _refuse(features, what)
    if hasattr(features, "columns") or hasattr(features, "num_rows"):
        return _row_of_frame(features, what)
    index = getattr(features, "index", None)
    if index is not None and not callable(index):
        return _with_names(index, features, what)
    if hasattr(features, "keys") and hasattr(features, "__getitem__"):
        return {name: features[name] for name in features.keys()}  # noqa: SIM118 - no mapping: it iterates over values
    for listing in ("tolist", "to_list", "to_pylist"):
        if callable(getattr(features, listing, None)):
            return _single_row(getattr(features, listing)(), what)
    if not hasattr(features, "__len__"):
        _refuse(features, what)
    return list(features)


def _row_of_array(features: Any, what: str) -> Any:
    if features.dtype.names is not None:
        rows = np.atleast_1d(features)
        _check_rows(rows.size, what)
        row = rows.ravel()[0]
        return {name: row[name] for name in features.dtype.names}
    if features.ndim == 2:
        _check_rows(len(features), what)
        features = features[0]
    if features.ndim != 1:
        raise EventInvalid("invalid", f"{what} must be one row, got an array of {features.ndim} dimensions")
    # Values of other kinds keep their type: a time would be listed as a number. For numbers, listing is the fastest way.
    numeric = features.dtype.kind in NUMBER_ARRAYS or isinstance(features, np.ma.MaskedArray)
    return features.tolist() if numeric else list(features)


def _row_of_frame(features: Any, what: str) -> Any:
    """Return the only row of a frame of pandas or polars, or of a table of pyarrow, by name."""
    shape = getattr(features, "shape", None)
    rows = shape[0] if isinstance(shape, tuple) else getattr(features, "num_rows", None)
    if not isinstance(rows, int):
        _refuse(features, what)
    _check_rows(rows, what)
    columns = getattr(features, "column_names", None) or features.columns
    if len(set(columns)) != len(columns):
        raise EventInvalid("invalid", f"{what} must have distinct names, got a column twice")
    for listing, arguments in (("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",))):
        if hasattr(features, listing):
            row = getattr(features, listing)(*arguments)[0]
            return list(row.values()) if _only_counts(columns) else row
    _refuse(features, what)


def _with_names(index: Any, features: Any, what: str) -> Any:
    """Return the values of a series by name, in order where its index only counts."""
    if not hasattr(features, "tolist"):
        _refuse(features, what)
    values, names = features.tolist(), list(index)
    if _only_counts(index):
        return values
    if len(set(names)) != len(names):
        raise EventInvalid("invalid", f"{what} must have distinct names, got one twice")
    return dict(zip(names, values, strict=True))


def _only_counts(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex"


def _single_row(values: Any, what: str) -> Any:
    if not isinstance(values, list):
        raise EventInvalid("invalid", f"{what} must be one row, got a single {type(values).__name__}")
    if values and isinstance(values[0], list):
        _check_rows(len(values), what)
        values = values[0]
    return values


def _check_rows(rows: int, what: str) -> None:
    if rows != 1:
        raise EventInvalid("invalid", f"{what} must be one row, got {rows}: log each row by itself")


def _refuse(features: Any, what: str) -> NoReturn:
    raise EventInvalid(
        "invalid", f"{what} must be a mapping, a list, or one row of a frame or array, got {type(features).__name__}"
    )


@lru_cache(maxsize=256)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


@lru_cache(maxsize=1024)
def _joined(names: tuple[Any, ...], rules: Admission) -> str | None:
    """Return feature names as the packed form carries them, None where only JSON can."""
    found = tuple(_name(name) for name in names)
    rules.names(found)
    # A newline in a name would split it on the other side.
    return None if any("\n" in name or not name for name in found) or len(set(found)) < len(found) else "\n".join(found)


def _name(name: Any) -> str:
    if isinstance(name, str):
        return str.__str__(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return str(int(name))
    raise EventInvalid("invalid", f"names of features must be text, got {type(name).__name__}")
