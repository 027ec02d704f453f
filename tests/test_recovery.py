"""Recovery: told where newer rows show it, and never of lasting damage."""

import numpy as np
import pytest

from driftloop.detectors.recovery import Change
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftClosed, DriftOpened, DriftUpdated
from driftloop.tests.watch_streams import Stream, errors, play


def change(*, is_share: bool = True, one_sided: bool = True, before: float = 0.1, after: float = 0.3) -> Change:
    return Change(before, 2_000, after, 300, 0.3, 1.0, is_share, one_sided)


@pytest.mark.parametrize("is_share", [True, False])
def test_a_level_is_back_where_evidence_says_so(is_share: bool) -> None:
    known = change(is_share=is_share)
    assert known.is_back(0.1, 500)
    assert known.is_back(0.02, 500), "better than before is back too"
    assert not known.is_back(0.1, 5), "few rows show nothing"
    assert not known.is_back(0.17, 500), "near, but shown to differ"
    assert not known.is_back(0.3, 500)
    assert not known.is_back(0.5, 500), "no move backwards"
    assert not change(is_share=is_share, one_sided=False).is_back(0.0, 500)


def test_a_small_change_is_not_back_because_it_is_near() -> None:
    known = change(before=0.10, after=0.17)
    assert known.is_near(0.17)
    assert not known.is_back(0.17, 500)
    assert not known.is_back(0.16, 4_000)
    assert change(before=0.17, after=0.10, one_sided=False).is_back(0.17, 4_000)


def closings(shares: list[tuple[int, float]], seed: int) -> list[tuple[int, DriftOpened | DriftClosed]]:
    rows = sum(count for count, _ in shares)
    told = play(Stream(rows, np.empty((rows, 0)), errors(shares, seed)), MonitorConfig(), [5_000])
    return [(order // 2, event) for order, event in told if isinstance(event, DriftOpened | DriftClosed)]


@pytest.mark.parametrize(("before", "after"), [(0.03, 0.07), (0.1, 0.17), (0.3, 0.4), (0.01, 0.04), (0.1, 0.5)])
def test_lasting_damage_is_never_told_as_recovered(before: float, after: float) -> None:
    opened = 0
    for seed in range(10):
        found = [event for row, event in closings([(5_000, before), (12_000, after)], seed) if row >= 5_000]
        opened += any(isinstance(event, DriftOpened) and event.direction == "worse" for event in found)
        assert "recovered" not in [event.reason for event in found if isinstance(event, DriftClosed)]
    assert opened >= 9


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.6), (0.1, 0.3), (0.03, 0.1), (0.3, 0.5), (0.002, 0.5)])
def test_an_error_that_comes_back_is_told_as_recovered(before: float, after: float) -> None:
    recovered = 0
    for seed in range(8):
        found = closings([(5_000, before), (1_500, after), (4_000, before)], seed)
        closed = [(row, event) for row, event in found if isinstance(event, DriftClosed) and event.reason == "recovered"]
        recovered += len(closed)
        for row, event in closed:
            assert row >= 6_500
            if event.rows is not None:
                assert 6_400 <= event.rows.start_offset <= row
    assert recovered >= 7


@pytest.mark.parametrize(("before", "after", "then"), [(0.1, 0.6, 0.25), (0.05, 0.4, 0.15), (0.02, 0.3, 0.1)])
def test_half_a_recovery_is_another_change(before: float, after: float, then: float) -> None:
    for seed in range(5):
        found = closings([(5_000, before), (1_500, after), (4_000, then)], seed)
        told = [event.reason if isinstance(event, DriftClosed) else event.direction for _, event in found]
        assert told[:3] == ["worse", "superseded", "better"]
        assert "recovered" not in told


def test_worse_and_worse_still_recovers_to_the_level_before_both() -> None:
    for then, ends in ((0.1, "recovered"), (0.4, "superseded")):
        found = closings([(3_000, 0.1), (1_500, 0.4), (1_500, 0.9), (2_500, then)], 3)
        assert [event.reason for _, event in found if isinstance(event, DriftClosed)][:2] == ["superseded", ends]


def test_milestones_are_told_after_an_episode_has_settled() -> None:
    config = MonitorConfig(settle_rows=500, milestones=(300, 2_000))
    stream = Stream(6_000, np.empty((6_000, 0)), errors([(2_000, 0.1), (4_000, 0.6)], 1), delay=40)
    events = [event for _, event in play(stream, config, [700])]
    told = [event for event in events if isinstance(event, DriftOpened | DriftUpdated | DriftClosed)]
    counts = [(type(event).__name__, event.labelled_rows) for event in told]
    assert counts[1:] == [("DriftUpdated", 300), ("DriftClosed", 500), ("DriftUpdated", 2_000)]
    assert len({event.episode_id for event in told}) == 1
    for sizes in ([9], [100_000]):
        assert [event for _, event in play(stream, config, sizes)] == events
