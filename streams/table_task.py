"""The task of a table: what the user says, else what its labels look like. One rule for replay, compress and demo, told aloud."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..schemas import values
from ..schemas.errors import InputInvalid
from ..schemas.events import Scalar, Task
from .table_file import shown

PEEK_ROWS = 1_000
MOST_SPARSE_CLASSES = 20
MOST_CLASSES = 100
ROWS_PER_CLASS = 5
MOST_WHOLE = 2**53
ClassKind = Literal["whole", "truth", "text"]


@dataclass(frozen=True, slots=True)
class Assumed:
    """The task of a table, and in words why; `said` where the user gave it."""

    task: Task
    why: str
    said: bool = False

    def sentence(self) -> str | None:
        """Return what to tell the user, None where it was the user who said so."""
        if self.said:
            return None
        other = "regression" if self.task == "classification" else "classification"
        return f"{self.task} is assumed: {self.why} (--task {other} says otherwise)"


def task_of(given: Task | None, cells: Iterable[str]) -> Assumed:
    """Return the given task, else the one that the cells of labels (and outputs) show.

    Text and truth values are classes, a number with a fraction is a number. Whole numbers are classes where they are few, or where they
    count up from 0 or 1 and come again and again; else they are counts.
    """
    if given is not None:
        return Assumed(given, "", said=True)
    found = [value for value in map(values.cell, cells) if value is not None]
    kinds = {type(value) for value in found}
    if str in kinds or not found:
        return Assumed("classification", "labels are text" if found else "there are no labels yet")
    if kinds == {bool}:
        return Assumed("classification", "labels are true or false")
    numbers = {as_float(value) for value in found if not isinstance(value, str)}
    if not all(number.is_integer() for number in numbers):
        return Assumed("regression", "labels have fractions")
    many = len(numbers)
    if many <= MOST_SPARSE_CLASSES:
        return Assumed("classification", f"labels are {many} different whole numbers")
    in_line = min(numbers) in (0, 1) and max(numbers) - min(numbers) == many - 1
    if in_line and many <= MOST_CLASSES and len(found) >= ROWS_PER_CLASS * many:
        return Assumed("classification", f"labels are the whole numbers {min(numbers):.0f} to {max(numbers):.0f}")
    return Assumed("regression", f"labels are {many} different whole numbers")


def class_kind(cells: Iterable[str]) -> ClassKind:
    """Return what the cells of classes are: whole numbers, with truth values among them as 1 and 0; truth values alone; else text."""
    kind: ClassKind = "truth"
    for value in map(values.cell, cells):
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str) or not as_float(value).is_integer():
            return "text"
        kind = "whole"
    return kind


def class_of(cell: str, kind: ClassKind, where: str) -> Scalar | None:
    """Return the class that a cell names, None where it is missing; raises InputInvalid where it is of another kind."""
    value = values.cell(cell)
    if value is None:
        return None
    if kind == "text":
        return cell.strip()
    if kind == "truth" and isinstance(value, bool):
        return value
    if kind == "whole" and not isinstance(value, str) and as_float(value).is_integer():
        if abs(value) > MOST_WHOLE:
            cure = "a letter in front of each makes them texts"
            raise InputInvalid(f"class must be within 2**53, got {shown(cell)} ({where}); {cure}")
        return int(value)
    wanted = "a whole number" if kind == "whole" else "true or false"
    raise InputInvalid(
        f"class must be {wanted} as in the rows before, got {shown(cell)} ({where}); --task regression takes any number"
    )


def typed_classes(cells: Sequence[str]) -> list[Scalar]:
    """Return the classes that a list names, each of the kind of all; raises InputInvalid."""
    if any(values.cell(cell) is None for cell in cells):
        # In a table these words say that there is no label; in a list of names they are names.
        return list(cells)
    kind = class_kind(cells)
    return [value for cell in cells if (value := class_of(cell, kind, "classes")) is not None]


def number_of(cell: str, where: str) -> float | None:
    """Return the number in a cell, None where it is missing; raises InputInvalid for a text."""
    value = values.cell(cell)
    if isinstance(value, str):
        raise InputInvalid(f"label must be a number, got {shown(cell)} ({where}); --task classification takes any text")
    return None if value is None else as_float(value)


def as_float(value: int | float) -> float:
    """Return a number as float, infinite where none holds it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
