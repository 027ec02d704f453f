"""Read tables and event files: CSV[.gz] with typed columns, NDJSON[.gz] lines, `-` for standard input."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import DriftloopError, NotFound
from ..schemas.events import FeatureValue, Scalar

ColumnType = Literal["int", "float", "text"]
MISSING = frozenset({"", "na", "nan", "null", "none"})
PEEK_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class CsvRow:
    """Be one data row: its number from 0, its line in the file from 1, its cells."""

    row: int
    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a labelled table: float32 (n, k) features with NaN where missing, int64 (n,) class indices, the classes in order."""

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[Scalar, ...]

    def __len__(self) -> int:
        """Return n."""
        return len(self.labels)


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is gzip; raises NotFound for a missing file, DriftloopError for a broken one."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
    except FileNotFoundError:
        raise NotFound(f"file must exist ({path})") from None
    except (IsADirectoryError, PermissionError) as problem:
        raise DriftloopError(f"file must be readable, got {problem.strerror} ({path})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise DriftloopError(f"file must be whole gzip, got {problem} ({path})") from None


def read_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line from 1, bytes without the line end) of every line that is not blank."""
    with open_bytes(path) as stream:
        for line, text in enumerate(stream, start=1):
            stripped = text.strip()
            if stripped:
                yield line, stripped


class CsvFile:
    """Read a CSV file with a header, row by row; `header` is there at once. Raises DriftloopError naming the line."""

    def __init__(self, text: TextIO, path: str) -> None:
        self.path = path
        self._reader = csv.reader(text, strict=True)
        self.header = self._next() or []
        if not self.header:
            raise DriftloopError(f"table must begin with a header line, got an empty file ({path})")
        doubled = {name for name in self.header if self.header.count(name) > 1}
        if doubled:
            raise DriftloopError(f"column names must differ, got {sorted(doubled)[0]!r} twice ({path}, line 1)")
        self._row = -1

    def column(self, name: str) -> int:
        """Return the index of a column; raises NotFound with the columns there are."""
        if name not in self.header:
            raise NotFound(f"column must be one of {', '.join(self.header)}, got {name!r} ({self.path})")
        return self.header.index(name)

    def __iter__(self) -> Iterator[CsvRow]:
        """Yield the data rows; a row with another number of cells than the header is an error."""
        while (cells := self._next()) is not None:
            if not cells:
                continue
            line = self._reader.line_num
            if len(cells) != len(self.header):
                raise DriftloopError(f"row must have {len(self.header)} cells, got {len(cells)} ({self.path}, line {line})")
            self._row += 1
            yield CsvRow(self._row, line, cells)

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as problem:
            raise DriftloopError(f"line must be CSV, got {problem} ({self.path}, line {self._reader.line_num})") from None
        except UnicodeDecodeError:
            line = self._reader.line_num + 1
            raise DriftloopError(f"file must be UTF-8 text ({self.path}, at or after line {line})") from None


@contextmanager
def open_csv(path: str) -> Iterator[CsvFile]:
    """Open a CSV[.gz] file; raises as open_bytes."""
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            yield CsvFile(text, path)
        finally:
            # Else the wrapper closes standard input when it goes.
            text.detach()


def is_missing(cell: str) -> bool:
    """Return True for an empty cell and the usual words for nothing."""
    return cell.strip().lower() in MISSING


def column_type(cells: Sequence[str]) -> ColumnType:
    """Return the narrowest type that holds every cell that is not missing; text where there is none."""
    present = [cell for cell in cells if not is_missing(cell)]
    for kind, parse in (("int", int), ("float", float)):
        if present and all(_parses(cell, parse) for cell in present):
            return cast(ColumnType, kind)
    return "text"


def typed_cells(cells: Sequence[str]) -> list[Scalar]:
    """Return every cell in the narrowest type that holds them all."""
    parse: dict[ColumnType, type[Scalar]] = {"int": int, "float": float, "text": str}
    kind = parse[column_type(cells)]
    return [kind(cell.strip()) for cell in cells]


def parse_scalar(cell: str, kind: ColumnType) -> Scalar | None:
    """Return a label or output of the column's type, None where missing; raises ValueError where the cell is of another type."""
    if is_missing(cell):
        return None
    if kind == "text":
        return cell.strip()
    return int(cell) if kind == "int" else float(cell)


def parse_feature(cell: str) -> FeatureValue:
    """Return a number, a category, or None where missing."""
    if is_missing(cell):
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def read_table(path: str, label: str) -> Table:
    """Return a whole table of numeric features and one label column; raises DriftloopError naming line and column."""
    with open_csv(path) as file:
        at = file.column(label)
        names = tuple(name for name in file.header if name != label)
        if not names:
            raise DriftloopError(f"table must have a feature column beside {label!r} ({path})")
        raw_labels: list[str] = []
        numbers: list[NDArray[np.float32]] = []
        for row in file:
            raw_labels.append(row.cells.pop(at).strip())
            if is_missing(raw_labels[-1]):
                raise DriftloopError(f"label must be given, got an empty cell ({path}, line {row.line}, column {label})")
            numbers.append(_numbers(row, names, path))
    if not numbers:
        raise DriftloopError(f"table must have rows, got only a header ({path})")
    typed = typed_cells(raw_labels)
    classes = tuple(sorted(set(typed), key=lambda value: (isinstance(value, str), value)))
    index = {value: position for position, value in enumerate(classes)}
    return Table(names, np.stack(numbers), np.array([index[value] for value in typed], np.int64), classes)


def _numbers(row: CsvRow, names: tuple[str, ...], path: str) -> NDArray[np.float32]:
    try:
        return np.array([float(cell) for cell in row.cells], np.float32)
    except ValueError:
        values = np.full(len(names), np.nan, np.float32)
        for position, cell in enumerate(row.cells):
            if is_missing(cell):
                continue
            if not _parses(cell, float):
                where = f"{path}, line {row.line}, column {names[position]}"
                raise DriftloopError(f"feature must be a number, got {cell!r} ({where})") from None
            values[position] = float(cell)
        return values


def _parses(cell: str, parse: type[int] | type[float]) -> bool:
    try:
        parse(cell)
    except ValueError:
        return False
    return True
