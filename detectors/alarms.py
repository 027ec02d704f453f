"""What a lane says of its signals: alarms, and levels of newer rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A row: offsets of its prediction and label, and its event time."""

    offset: int
    label_offset: int
    ts: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change of a signal: raw means before and after, the effect in sd of a row, and where.

    `start` is the first row that most likely lies after the change, `rows` how many rows of the lane do, the tipping one included;
    `before_rows` and `after_rows` lie behind the means, `correlation_rows` carry the evidence of one. `is_share`: of rows of 0 and 1.
    """

    signal: str
    detector: str
    parameters: dict[str, float]
    before: float
    after: float
    effect: float
    row_sd: float
    change: Place
    start: Place
    reference: Place
    rows: int
    before_rows: float
    after_rows: float
    correlation_rows: float
    is_share: bool


@dataclass(frozen=True, slots=True)
class Level:
    """The raw mean of a signal over `rows` newer rows; `fresh` where they made a new baseline."""

    signal: str
    mean: float
    rows: int
    fresh: bool = False
