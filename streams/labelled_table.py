"""A whole table of numeric features and one label, for compress and demo: columns, task and odd cells by the rules that replay has too."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ..schemas import values
from ..schemas.errors import InputInvalid
from ..schemas.events import Scalar, Task
from ..schemas.feature_row import UNKNOWN_CODE
from .table_columns import Chosen, Wanted, choose
from .table_file import CsvFile, CsvRow, open_csv, shown
from .table_task import PEEK_ROWS, as_float, class_kind, class_of, number_of, task_of

MOST_TEXT_BYTES = 256
UNKNOWN = str(UNKNOWN_CODE)
Categories = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """A labelled table: float32 (n, k) features, NaN where missing; labels as int64 (n,) indices of `classes`, or float64 numbers without.

    `notes`: what to tell the user of how it was read.
    """

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float64]
    classes: tuple[Scalar, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return n."""
        return len(self.labels)

    @property
    def task(self) -> Task:
        """Return regression where there are no classes."""
        return "classification" if self.classes else "regression"

    def label(self, row: int) -> Scalar:
        """Return the label of a row as events carry it."""
        return self.classes[int(self.labels[row])] if self.classes else float(self.labels[row])


class _Numbers:
    """The features of the rows read so far, and how many cells were beyond float32."""

    def __init__(self, file: CsvFile, chosen: Chosen, categories: Categories) -> None:
        self._file = file
        self._columns = chosen.features
        codes = enumerate(categories[: len(chosen.features)])
        self._codes = {at: {text: str(place) for place, text in enumerate(texts)} for at, texts in codes if texts}
        self._cells = array("f")
        self._beyond = 0
        self._first = ""

    def add(self, row: CsvRow) -> None:
        cells = [row.cells[at] for at in self._columns]
        for place, codes in self._codes.items():
            text = cells[place].strip()
            cells[place] = codes.get(text, "nan" if values.cell(text) is None else UNKNOWN)
        try:
            # Python's own spelling of numbers would take 1_000 for one.
            found = [float("_" if "_" in cell else cell) for cell in cells]
        except ValueError:
            found = [self._number(cell, row.line, at) for cell, at in zip(cells, self._columns, strict=True)]
        if not all(-values.FLOAT32_MAX <= number <= values.FLOAT32_MAX for number in found):
            for place, number in enumerate(found):
                if abs(number) > values.FLOAT32_MAX:
                    found[place] = self._too_large(cells[place], row.line, self._columns[place])
        self._cells.extend(found)

    def matrix(self) -> NDArray[np.float32]:
        """Return float32 (n, k)."""
        return np.frombuffer(self._cells, np.float32).reshape(-1, len(self._columns)).copy()

    def note(self) -> str | None:
        """Return what to tell of cells that were taken as missing."""
        if not self._beyond:
            return None
        cells = "cell is" if self._beyond == 1 else "cells are"
        return f"{self._beyond} {cells} infinite or beyond float32 and taken as missing, the first: {self._first}"

    def _number(self, cell: str, line: int, at: int) -> float:
        value = values.cell(cell)
        if isinstance(value, str):
            where = self._file.where(line, at)
            cure = f"--ignore {self._file.header[at]} leaves the column out"
            raise InputInvalid(f"feature must be a number, got {shown(cell)} ({where}); {cure}")
        return np.nan if value is None else as_float(value)

    def _too_large(self, cell: str, line: int, at: int) -> float:
        self._beyond += 1
        if self._beyond == 1:
            self._first = f"{shown(cell.strip())} ({self._file.where(line, at)})"
        return np.nan


def read_table(
    path: str, wanted: Wanted, task: Task | None = None, needed: int | None = None, categories: Categories = ()
) -> Table:
    """Return a whole table; `task` None: assumed from the labels; `needed`: how many features the model takes, if one is at hand.

    `categories`: for each feature in order the texts that a column of texts may hold, none for a column of numbers.
    Raises NotFound for a missing file, InputInvalid naming line and column.
    """
    with open_csv(path) as file:
        rows = iter(file)
        head = list(islice(rows, PEEK_ROWS))
        if not head:
            raise InputInvalid(f"table must have rows, got only a header ({path})")
        chosen = choose(file, head, wanted, needed)
        if not chosen.features:
            raise InputInvalid(f"table must have a feature column beside {wanted.label!r} ({path})")
        assumed = task_of(task, (row.cells[chosen.label] for row in head))
        numbers = _Numbers(file, chosen, categories)
        cells = list(_label_cells(chain(head, rows), file, chosen, numbers))
        labels, classes = _regression(cells, file, chosen) if assumed.task == "regression" else _classes(cells, file, chosen)
        notes = (assumed.sentence(), chosen.sentence(), numbers.note())
        names = tuple(file.header[at] for at in chosen.features)
        return Table(names, numbers.matrix(), labels, classes, tuple(note for note in notes if note is not None))


def _label_cells(rows: Iterator[CsvRow], file: CsvFile, chosen: Chosen, numbers: _Numbers) -> Iterator[tuple[int, str]]:
    """Yield (line, cell) of the label of each row, whose features go to `numbers`."""
    for row in rows:
        cell = row.cells[chosen.label]
        if values.cell(cell) is None:
            where = file.where(row.line, chosen.label)
            raise InputInvalid(f"label must be given, got {'an empty cell' if not cell.strip() else shown(cell)} ({where})")
        numbers.add(row)
        yield row.line, cell


def _regression(cells: list[tuple[int, str]], file: CsvFile, chosen: Chosen) -> tuple[NDArray[np.float64], tuple[Scalar, ...]]:
    found = np.empty(len(cells), np.float64)
    for row, (line, cell) in enumerate(cells):
        where = file.where(line, chosen.label)
        number = number_of(cell, where)
        if number is None or not abs(number) <= values.FLOAT32_MAX:
            raise InputInvalid(f"label must be finite and within float32, got {shown(cell)} ({where})")
        found[row] = number
    return found, ()


def _classes(cells: list[tuple[int, str]], file: CsvFile, chosen: Chosen) -> tuple[NDArray[np.int64], tuple[Scalar, ...]]:
    kind = class_kind(cell for _, cell in cells)
    known: dict[str, Scalar] = {}
    for line, cell in cells:
        if cell in known:
            continue
        where = file.where(line, chosen.label)
        value = class_of(cell, kind, where)
        assert value is not None
        if isinstance(value, str) and len(value.encode()) > MOST_TEXT_BYTES:
            raise InputInvalid(f"class must have at most {MOST_TEXT_BYTES} bytes, got {shown(cell)} ({where})")
        known[cell] = value
    classes = tuple(sorted(set(known.values()), key=lambda value: (isinstance(value, str), value)))
    index = {value: position for position, value in enumerate(classes)}
    return np.array([index[known[cell]] for _, cell in cells], np.int64), classes
