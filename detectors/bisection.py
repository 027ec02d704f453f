"""Bisection: what fails on many records is tried on halves of them, down to the record it fails on, which becomes a dead letter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .faults import contained
from .inspection import Inspector
from .pieces import Piece

Rows = TypeVar("Rows")


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
