"""The record times of a file's lines: rising as they are, and deaf to a line whose clock is wrong."""

from typing import NamedTuple

import pytest

from driftloop.detectors.stream_time import YEAR_2000_MS
from driftloop.streams.line_times import with_record_times

NOW = 1_714_500_000_000
DAY, YEAR = 86_400_000, 365 * 86_400_000


class Line(NamedTuple):
    """A line of a file."""

    ts_ms: int | None
    line: int


def times(found: list[int | None]) -> list[int | None]:
    return [line.ts_ms for line in with_record_times(Line(ts_ms, number) for number, ts_ms in enumerate(found))]


@pytest.mark.parametrize("step", [0, 1, 1000, DAY, 30 * DAY])
def test_rising_times_are_kept(step: int) -> None:
    rising: list[int | None] = [NOW + step * number for number in range(50)]
    assert times(rising) == rising


def test_gaps_and_times_that_run_back_are_kept() -> None:
    found: list[int | None] = [NOW, NOW + 9 * DAY, NOW + 9 * DAY + 1, NOW + 9 * DAY + 2, NOW + 5, NOW + 20 * DAY]
    assert times(found) == found


@pytest.mark.parametrize("wrong", [NOW + YEAR, NOW * 1000, NOW * 1_000_000])
@pytest.mark.parametrize("at", [0, 1, 25, 48])
@pytest.mark.parametrize("step", [1000, DAY])
def test_a_line_that_stands_alone_ahead_has_the_time_of_those_before(wrong: int, at: int, step: int) -> None:
    found: list[int | None] = [NOW + step * number for number in range(50)]
    found[at] = wrong
    said = times(found)
    assert said[:at] + said[at + 1 :] == found[:at] + found[at + 1 :]
    assert said[at] == (NOW + step * (at - 1) if at else NOW + step)


def test_lines_without_a_time_keep_their_order() -> None:
    assert times([None, None, None]) == [YEAR_2000_MS, YEAR_2000_MS + 1, YEAR_2000_MS + 2]
