"""The warm-up of a lane or of one of its signals: raw rows first, then the baselines that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from . import baseline as baselines
from .baseline import Baseline
from .blocks import Feed
from .columns import Floats, Ints
from .history import NO_PLACES, NO_TIMES

# Few steps, as each copies: a name, a model barely seen, one that is watched.
ROOMS_ROWS = (4, 16, 64)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LaneKind:
    """What a lane holds: `numbers` are its signals with values of their own, `shares` how many of the first have a missing share.

    `binary`: the values are 0 and 1. `careful`: Page-Hinkley watches beside ADWIN. `delta`: significance of each signal's ADWIN.
    """

    numbers: tuple[str, ...]
    shares: int
    binary: bool
    careful: bool
    delta: float
    least_block_rows: int
    history_blocks: int
    signals: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Name all signals, the missing shares last."""
        shares = tuple("missing/" + name.removeprefix("feature/") for name in self.numbers[: self.shares])
        object.__setattr__(self, "signals", self.numbers + shares)


@dataclass(slots=True)
class WarmUp:
    """The raw rows for the baseline of a whole lane, or of one signal, whose values lie in `column`; room grows as they come.

    `first` (offset, label offset) and `ts` only where the whole lane warms up.
    """

    signals: list[int]
    rows: int
    column: int
    values: Floats
    whole: bool = False
    filled: int = 0
    first: Ints = field(default_factory=lambda: NO_PLACES)
    ts: Floats = field(default_factory=lambda: NO_TIMES)

    @classmethod
    def of_lane(cls, signals: int, rows: int, width: int) -> WarmUp:
        """Return the warm-up of a whole lane."""
        return cls(list(range(signals)), rows, 0, np.empty((0, width)), whole=True)

    @classmethod
    def of_signal(cls, signal: int, rows: int, column: int) -> WarmUp:
        """Return the warm-up of one signal."""
        return cls([signal], rows, column, np.empty((0, 1)))

    def absorb(self, feed: Feed, rows: slice) -> None:
        """Keep raw rows."""
        to = slice(self.filled, self.filled + rows.stop - rows.start)
        if to.stop > len(self.values):
            self._grow(to.stop)
        if self.whole:
            self.values[to] = feed.values[rows]
            self.first[to, 0], self.first[to, 1] = feed.offset[rows], feed.label_offset[rows]
            self.ts[to] = feed.ts[rows]
        else:
            self.values[to, 0] = feed.values[rows, self.column]
        self.filled = to.stop

    def _grow(self, rows: int) -> None:
        if rows > self.rows:
            raise ValueError(f"warm-up must take at most {self.rows} rows, got {rows}")
        # A model of one row must not cost the memory of one that is watched.
        size, filled = next((room for room in ROOMS_ROWS if rows <= room < self.rows), self.rows), self.filled
        values = np.empty((size, self.values.shape[1]))
        values[:filled] = self.values[:filled]
        self.values = values
        if self.whole:
            first, ts = np.empty((size, 2), np.int64), np.empty(size)
            first[:filled], ts[:filled] = self.first[:filled], self.ts[:filled]
            self.first, self.ts = first, ts


def baseline_of(values: Floats, kind: LaneKind, clip_sd: float, *, is_share: bool) -> Baseline | None:
    """Return the baseline of a signal from the raw values of its column."""
    if is_share:
        return baselines.of_shares(np.isnan(values).astype(np.float64))
    return baselines.of_shares(values) if kind.binary else baselines.of_numbers(values, clip_sd)


def first_baselines(values: Floats, kind: LaneKind, clip_sd: float) -> list[Baseline | None]:
    """Return the baselines of all signals of a lane from its raw rows."""
    if kind.binary:
        return [baseline_of(column, kind, clip_sd, is_share=False) for column in values.T]
    gaps = np.asarray(np.isnan(values[:, : kind.shares]).any(axis=0)).tolist()
    never = _never_missing(len(values))
    shares = [baseline_of(values[:, at], kind, clip_sd, is_share=True) if gap else never for at, gap in enumerate(gaps)]
    return [*baselines.of_number_columns(values, clip_sd), *shares]


@cache
def _never_missing(rows: int) -> Baseline | None:
    return baselines.of_shares(np.zeros(rows))


def past_blocks(values: Floats, size: int, known: list[Baseline | None], clip_sd: float) -> tuple[Floats, Ints]:
    """Return means in z and counts of what is there, (blocks, width), of raw rows (blocks * size, width)."""
    center = np.array([np.nan if one is None else one.center for one in known])
    factor = np.array([np.nan if one is None else 1.0 / one.scale for one in known])
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.minimum(np.maximum((values - center) * factor, -clip_sd), clip_sd)
    return block_means(z.reshape(-1, size, len(known)))


def block_means(z: Floats) -> tuple[Floats, Ints]:
    """Return means and counts, (blocks, width), of the values of (blocks, rows, width) that are there, NaN and 0 where none is."""
    gone = np.isnan(z)
    if not gone.any():
        return z.sum(axis=1) / z.shape[1], np.full((len(z), z.shape[2]), z.shape[1], np.int64)
    present = z.shape[1] - gone.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gone, 0.0, z).sum(axis=1) / present, present
