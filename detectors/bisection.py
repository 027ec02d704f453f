"""Bisection: what fails on many records is tried on halves of them, down to the record it fails on, which becomes a dead letter.

`bisected` does so for records that are taken in, `in_halves` for rows that came of records, which are told by their place in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from .faults import contained
from .inspection import Inspector
from .pieces import Piece

Rows = TypeVar("Rows")


class Blame:
    """The blame for a fault in a row: the record of `pieces` that stands at its place in the log becomes a dead letter."""

    def __init__(self, inspector: Inspector, pieces: Sequence[Piece]) -> None:
        self._inspector = inspector
        self._pieces = pieces

    def put(self, order: int, fault: str) -> None:
        """Refuse the record at `order`."""
        for piece in self._pieces:
            at = int(piece.order.searchsorted(order))
            if at < len(piece.order) and piece.order[at] == order:
                self._inspector.refuse(piece, piece.start + at, "processing_error", fault)
                return


def in_halves(run: Callable[[int, int], Rows], span: tuple[int, int], lost: Callable[[int, str], None]) -> list[Rows]:
    """Return what `run` makes of the rows of a span, in order, without those that it fails on: `lost` is told of each, and why.

    What `run` changes before it fails, it must be able to change again.
    """
    start, stop = span
    try:
        return [run(start, stop)]
    except BaseException as problem:  # noqa: BLE001 - one record must not hurt another
        fault = contained(problem)
    if stop - start <= 1:
        if stop > start:
            lost(start, fault)
        return []
    half = (start + stop) // 2
    return [*in_halves(run, (start, half), lost), *in_halves(run, (half, stop), lost)]


def bisected(read: Callable[[Piece], Rows], joined: Callable[[list[Rows]], Rows], piece: Piece, inspector: Inspector) -> Rows:
    """Return what `read` makes of a piece without the records that it fails on: those are refused, as a fault of ours."""
    before = inspector.mark()
    try:
        return read(piece)
    except BaseException as problem:  # noqa: BLE001 - one record must not hurt another
        fault = contained(problem)
    inspector.return_to(before)
    if piece.stop - piece.start <= 1:
        if piece.stop > piece.start:
            inspector.refuse(piece, piece.start, "processing_error", fault)
        return joined([])
    half = (piece.start + piece.stop) // 2
    parts = [piece.cut(piece.start, half), piece.cut(half, piece.stop)]
    return joined([bisected(read, joined, part, inspector) for part in parts])
