"""The times of a file's lines, as far as their neighbours bear them out: one line whose clock is wrong must not be the time of all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, Self, TypeVar

from ..detectors.stream_time import CONFIRMING, JUMP_MS, YEAR_2000_MS, YEAR_2100_MS

LOOK_AHEAD = 16


class Timed(Protocol):
    """A line that may have a time."""

    @property
    def ts_ms(self) -> int | None:
        """Return its time in milliseconds."""

    @property
    def line(self) -> int:
        """Return its number."""

    def _replace(self, *, ts_ms: int | None) -> Self:
        """Return the same line with another time."""


L = TypeVar("L", bound=Timed)


def with_record_times(lines: Iterable[L]) -> Iterator[L]:
    """Yield lines with the time stamps of their records: their own times, that of the lines before for one that stands alone ahead.

    A time counts unless it lies more than an hour ahead of the lines before and the lines after it do not. Lines without a time get one
    that tells their order.
    """
    rest, ahead, now_ms = iter(lines), deque[L](), 0
    for line in rest:
        ahead.append(line)
        if len(ahead) > LOOK_AHEAD:
            timed = _timed(ahead, now_ms)
            now_ms = max(now_ms, timed.ts_ms or 0)
            yield timed
    while ahead:
        timed = _timed(ahead, now_ms)
        now_ms = max(now_ms, timed.ts_ms or 0)
        yield timed


def _timed(ahead: deque[L], now_ms: int) -> L:
    """Take the first line; return it with its time stamp."""
    line = ahead.popleft()
    ts_ms = line.ts_ms
    if ts_ms is None:
        return line._replace(ts_ms=YEAR_2000_MS + line.line)
    if ts_ms <= now_ms + JUMP_MS:
        return line
    later = [one.ts_ms for one in ahead if one.ts_ms is not None][: CONFIRMING - 1]
    if ts_ms <= YEAR_2100_MS and min(later, default=ts_ms) >= ts_ms - JUMP_MS:
        return line
    # The first of all has no other lines before it than those behind.
    return line._replace(ts_ms=now_ms or min(ts_ms, YEAR_2100_MS, *later))
