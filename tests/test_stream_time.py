"""Stream time: the running maximum of what can be believed, whatever the cuts."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.detectors.stream_time import CONFIRMING, JUMP_MS, YEAR_2000_MS, YEAR_2100_MS, StreamTime

NOW = 1_700_000_000_000
HOUR, DAY, YEAR = 3_600_000, 86_400_000, 365 * 86_400_000
WILD = (-1, 0, NOW // 1000, NOW - YEAR, NOW + YEAR, NOW * 1000, NOW * 1_000_000)


def times(stamps: list[int], clock: StreamTime | None = None) -> list[int]:
    found: list[int] = (StreamTime() if clock is None else clock).advance(np.array(stamps, np.int64)).tolist()
    return found


steps = st.one_of(st.integers(0, 2_000), st.integers(0, 3 * HOUR), st.sampled_from([DAY, 30 * DAY]))
stamps = st.lists(st.tuples(st.integers(0, 9), steps, st.sampled_from(WILD)), max_size=60)


def log(drawn: list[tuple[int, int, int]]) -> list[int]:
    """Return time stamps that rise by steps, one in ten a wild one."""
    found, now = [], NOW
    for chance, step, wild in drawn:
        now += step
        found.append(wild if chance == 0 else now)
    return found


@given(stamps, st.integers(0, 2**32))
def test_one_log_has_one_time_however_it_is_cut(drawn: list[tuple[int, int, int]], seed: int) -> None:
    whole, chance = log(drawn), random.Random(seed)
    clock, cut, at = StreamTime(), [], 0
    while at < len(whole):
        count = chance.randrange(1, 9)
        clock = StreamTime(clock.state)
        cut += times(whole[at : at + count], clock)
        at += count
    assert cut == times(whole)
    assert cut == sorted(cut)
    ones = StreamTime()
    assert cut == [one for stamp in whole for one in times([stamp], ones)]


@given(st.lists(st.integers(0, JUMP_MS), max_size=40))
def test_believable_time_stamps_make_the_running_maximum(gaps: list[int]) -> None:
    whole = [NOW + int(gap) for gap in np.cumsum([0, *gaps])]
    shuffled = [max(NOW, stamp - gap // 2) for stamp, gap in zip(whole, [0, *gaps], strict=True)]
    assert times(shuffled) == np.maximum.accumulate(shuffled).tolist()


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("count", range(1, CONFIRMING))
def test_a_wrong_clock_moves_no_time_but_its_own(wild: int, count: int) -> None:
    assert times([NOW, NOW + 1, *[wild] * count, NOW + 2, wild, NOW + 3])[-2:] == [NOW + 2, NOW + 3]


def test_a_gap_is_believed_once_others_confirm_it() -> None:
    later = [NOW + 9 * DAY + second * 1000 for second in range(5)]
    assert times([NOW, *later]) == [NOW, NOW, NOW, *later[2:]]
    # A wrong clock among those that confirm does not take part.
    assert times([NOW, later[0], NOW + YEAR, later[1], later[2]]) == [NOW, NOW, NOW, later[1], later[2]]


def test_before_the_year_2000_it_is_no_time_yet() -> None:
    assert times([0, 5, NOW // 1000, NOW, NOW + 1]) == [0, 5, NOW // 1000, NOW, NOW + 1]
    assert times([YEAR_2100_MS + 1, 7, NOW]) == [-1, 7, NOW]
    assert times([YEAR_2000_MS, NOW]) == [YEAR_2000_MS, YEAR_2000_MS]
