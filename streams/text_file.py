"""Read text files that others wrote: gzip unpacked, line by line within bounds; what is no such text is named with its cure."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ..schemas.errors import InputInvalid, NotFound

MAX_LINE_BYTES = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
UTF_16 = "UTF-16 text; save it as UTF-8, such as: iconv -f UTF-16 -t UTF-8"
FOREIGN = (
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
    (b"PK\x03\x04", "a zip archive, as an Excel sheet is one; unpack it or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office document; save it as CSV"),
    (b"PAR1", "a Parquet file; write it as CSV"),
    (b"ARROW1", "an Arrow file; write it as CSV"),
    (b"SQLite format 3", "a SQLite database; write the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "a file packed by zstd; unpack it, or pack it by gzip"),
    (b"BZh", "a file packed by bzip2; unpack it, or pack it by gzip"),
    (b"\xfd7zXZ", "a file packed by xz; unpack it, or pack it by gzip"),
)


@contextmanager
def open_lines(path: str) -> Iterator[Iterator[bytes]]:
    """Open a file, `-` for standard input, and give its lines with their ends, unpacked if it is gzip.

    Raises NotFound for a missing file; InputInvalid, then or while it is read, for a broken or foreign one.
    """
    if path == "-":
        yield _lines(_unpacked(sys.stdin.buffer, path), path)
        return
    try:
        raw = Path(path).open("rb")  # noqa: SIM115 - closed below; the block's own errors are no errors of this file
    except FileNotFoundError:
        raise NotFound(f"file must exist ({path})") from None
    except (OSError, ValueError) as problem:
        raise InputInvalid(f"file must be readable, got {getattr(problem, 'strerror', None) or problem} ({path})") from None
    with raw:
        yield _lines(_unpacked(raw, path), path)


def read_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line from 1, bytes without the line end) of every line that is not blank; raises as open_lines."""
    with open_lines(path) as lines:
        for line, text in enumerate(lines, start=1):
            stripped = text.strip()
            if stripped:
                yield line, stripped


def read_text(path: str) -> Generator[str]:
    """Yield the lines of a text file in UTF-8; raises as open_lines, and InputInvalid for a byte that is none of it."""
    with open_lines(path) as lines:
        for line, raw in enumerate(lines, start=1):
            if b"\0" in raw:
                cure = "in UTF-16 every other byte is one: iconv -f UTF-16 -t UTF-8"
                raise InputInvalid(f"file must be text, got a NUL byte ({path}, line {line}, byte {raw.index(0) + 1}); {cure}")
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as problem:
                where = f"{path}, line {line}, byte {problem.start + 1}"
                cure = "save it as UTF-8, such as: iconv -f LATIN1 -t UTF-8"
                raise InputInvalid(f"file must be UTF-8 text, got byte 0x{raw[problem.start]:02x} ({where}); {cure}") from None
            if "\r" in text[:-2]:
                yield from io.StringIO(text, newline="")
            else:
                yield text


def _unpacked(raw: BinaryIO, path: str) -> BinaryIO:
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    try:
        packed = stream.peek(2)[:2] == b"\x1f\x8b"
    except OSError as problem:
        raise InputInvalid(f"file must be readable, got {problem.strerror or problem} ({path})") from None
    if not packed:
        return stream
    return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)))


def _lines(stream: BinaryIO, path: str) -> Iterator[bytes]:
    number = 0
    while line := _line(stream, path):
        number += 1
        if number == 1:
            for start, what in FOREIGN:
                if line.startswith(start):
                    raise InputInvalid(f"file must be text in UTF-8, or gzip of it, got {what} ({path})")
            line = line.removeprefix(BOM)
        if len(line) > MAX_LINE_BYTES:
            raise InputInvalid(f"line must have at most {MAX_LINE_BYTES} bytes, got more ({path}, line {number})")
        yield line


def _line(stream: BinaryIO, path: str) -> bytes:
    try:
        return stream.readline(MAX_LINE_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise InputInvalid(f"file must be whole gzip, got {problem} ({path})") from None
    except OSError as problem:
        raise InputInvalid(f"file must be readable, got {problem.strerror or problem} ({path})") from None
