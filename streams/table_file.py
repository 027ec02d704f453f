"""Read CSV[.gz] tables row by row, `-` for standard input; whatever is wrong is told by line and column, with its cure."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ..schemas.errors import InputInvalid
from .text_file import read_text

SHOWN_COLUMNS = 20
SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One data row: its number from 0, its line in the file from 1, its cells."""

    row: int
    line: int
    cells: list[str]


class CsvFile:
    """A CSV file with a header, read row by row; `header` is there at once. Raises InputInvalid naming the line."""

    def __init__(self, text: Iterator[str], path: str) -> None:
        self.path = path
        self._reader = csv.reader(text, strict=True)
        self.header = [name.strip() for name in self._next() or []]
        if not self.header:
            raise InputInvalid(f"table must begin with a header line, got an empty one ({path}, line 1)")
        doubled = [name for name, count in Counter(self.header).items() if count > 1]
        if doubled:
            raise InputInvalid(f"column names must differ, got {shown(doubled[0])} twice ({path}, line 1)")
        self._row = -1

    def column(self, name: str) -> int:
        """Return the index of a column; raises InputInvalid with the columns there are."""
        if name in self.header:
            return self.header.index(name)
        close = difflib.get_close_matches(name, self.header[:1_000], n=1)
        cure = f"; did you mean {close[0]}?" if close else ""
        apart = next((mark for mark in SEPARATORS if len(self.header) == 1 and mark in self.header[0]), None)
        if apart is not None:
            cure = f"; cells must be separated by commas, these seem to be by {apart!r}"
        raise InputInvalid(f"column must be one of {self._columns()}, got {shown(name)} ({self.path}, line 1){cure}")

    def where(self, line: int, column: int) -> str:
        """Return how messages name a cell."""
        return f"{self.path}, line {line}, column {self.header[column]}"

    def __iter__(self) -> Iterator[CsvRow]:
        """Yield the data rows; a row with another number of cells than the header is an error."""
        while (cells := self._next()) is not None:
            if not cells:
                continue
            line = self._reader.line_num
            if len(cells) != len(self.header):
                cure = "a comma or a quote inside a cell needs quotes around it"
                raise InputInvalid(f"row must have {len(self.header)} cells, got {len(cells)} ({self.path}, line {line}); {cure}")
            self._row += 1
            yield CsvRow(self._row, line, cells)

    def _columns(self) -> str:
        names = ", ".join(name if len(name) <= 80 else shown(name) for name in self.header[:SHOWN_COLUMNS])
        rest = len(self.header) - SHOWN_COLUMNS
        return names if rest <= 0 else f"{names} and {rest} more"

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as problem:
            why = str(problem)
            if "field larger than" in why:
                why = f"a cell of more than {csv.field_size_limit()} characters, or a quote that is never closed"
            elif "unexpected end" in why:
                why = "a quote that is never closed"
            raise InputInvalid(f"line must be CSV, got {why} ({self.path}, line {self._reader.line_num})") from None


@contextmanager
def open_csv(path: str) -> Iterator[CsvFile]:
    """Open a CSV[.gz] file; raises NotFound, InputInvalid."""
    with closing(read_text(path)) as text:
        yield CsvFile(text, path)


def shown(text: str) -> str:
    """Return a cell as messages quote it."""
    quoted = repr(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}... of {len(text)} characters"
