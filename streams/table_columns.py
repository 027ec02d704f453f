"""Which columns of a table are features: those the user names, else all but label, prediction, and what only counts the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from ..schemas import values
from ..schemas.errors import InputInvalid
from .table_file import CsvFile, CsvRow
from .table_task import as_float

LEAST_ROWS = 50
SHOWN_NAMES = 8
Value = TypeVar("Value", float, str)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said of the columns: label, prediction if there is one, features or what to ignore (empty: not said)."""

    label: str
    output: str | None = None
    features: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Indices of the columns; `counters` names those left out for counting the rows."""

    label: int
    output: int | None
    features: tuple[int, ...]
    counters: tuple[str, ...] = ()

    def sentence(self) -> str | None:
        """Return what to tell the user of columns that were left out unasked."""
        if not self.counters:
            return None
        names = ", ".join(name or "the one without a name" for name in self.counters[:SHOWN_NAMES])
        rest = len(self.counters) - SHOWN_NAMES
        if rest > 0:
            names += f" and {rest} more"
        return f"no features, since they rise or fall with every row as an index, an id or a time does: {names} (--features names them all)"


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated option."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def choose(file: CsvFile, head: Sequence[CsvRow], wanted: Wanted, needed: int | None = None) -> Chosen:
    """Return the columns; `head` shows which only count rows. Where a model needs so many features, these stay unless they are too many.

    Raises InputInvalid for a name that is no column, and where no feature is left though the model needs some.
    """
    label = file.column(wanted.label)
    output = None if wanted.output is None else file.column(wanted.output)
    if output == label:
        raise InputInvalid(f"label and prediction must be different columns, got {wanted.label!r} twice ({file.path})")
    for name in (*wanted.features, *wanted.ignored):
        if file.column(name) in (label, output):
            raise InputInvalid(f"feature must be another column than label and prediction, got {name!r} ({file.path})")
    if wanted.features:
        named = [name for name in wanted.features if name not in wanted.ignored]
        return Chosen(label, output, tuple(file.column(name) for name in dict.fromkeys(named)))
    features = [at for at, name in enumerate(file.header) if at not in (label, output) and name not in wanted.ignored]
    if needed is not None and len(features) <= needed:
        return Chosen(label, output, tuple(features))
    counting = {at for at in features if _counts(file.header[at], [row.cells[at] for row in head])}
    if needed is not None and len(features) - len(counting) != needed:
        counting = set()
    kept = tuple(at for at in features if at not in counting)
    return Chosen(label, output, kept, tuple(file.header[at] for at in features if at in counting))


def _counts(name: str, cells: Sequence[str]) -> bool:
    """Return True for a column that only rises or only falls, mostly from row to row: an index, an id, a time; none of them repeats."""
    if len(cells) < LEAST_ROWS:
        return name == ""
    found = [values.cell(cell) for cell in cells]
    if any(value is None or isinstance(value, bool) for value in found):
        return False
    texts = [value for value in found if isinstance(value, str)]
    numbers = [as_float(value) for value in found if isinstance(value, int | float)]
    if texts and numbers:
        return False
    places = _ranks(texts) if texts else _ranks(numbers)
    if len(set(places)) * 2 < len(cells):
        return False
    return all(after >= before for before, after in pairwise(places)) or all(after <= before for before, after in pairwise(places))


def _ranks(found: list[Value]) -> list[int]:
    rank = {value: at for at, value in enumerate(sorted(set(found)))}
    return [rank[value] for value in found]
