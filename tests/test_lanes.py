"""Lanes under the default settings: quiet on steady streams, quick on real changes, no matter the unit of a signal."""

from collections import Counter

import numpy as np
import pytest

from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened, MetricsComputed
from driftloop.tests.watch_streams import Stream, errors, numbers, play

DEFAULTS = MonitorConfig()


def opened(stream: Stream, config: MonitorConfig = DEFAULTS) -> list[tuple[int, DriftOpened]]:
    """Return (row of the tipping record, event)."""
    return [(order // 2, event) for order, event in play(stream, config, [20_000]) if isinstance(event, DriftOpened)]


def autoregressive(rows: int, features: int, phi: float, seed: int) -> np.ndarray:
    values = numbers(rows, features, seed)
    for at in range(1, rows):
        values[at] += phi * values[at - 1]
    return values


STEADY = {
    "normal, mean 100, sd 20": lambda rows: 100.0 + 20.0 * numbers(rows, 30, 1),
    "lognormal": lambda rows: np.exp(numbers(rows, 30, 2)),
    "autoregressive 0.5": lambda rows: autoregressive(rows, 30, 0.5, 3),
    "autoregressive 0.9": lambda rows: autoregressive(rows, 30, 0.9, 4),
}


@pytest.mark.parametrize("kind", STEADY)
def test_thirty_steady_features_with_gaps_raise_no_alarm(kind: str) -> None:
    rows = 40_000
    features = STEADY[kind](rows)
    rng = np.random.default_rng(9)
    features[rng.random(features.shape) < 0.01] = np.nan
    stream = Stream(rows, features, np.zeros(rows))
    stream.latency = rng.lognormal(3.0, 0.5, rows)
    assert opened(stream) == []


def test_steady_errors_raise_at_most_one_alarm_per_100_000_rows() -> None:
    alarms = 0
    for share in (0.02, 0.1, 0.4):
        for seed in range(2):
            alarms += len(opened(Stream(50_000, np.empty((50_000, 0)), errors([(50_000, share)], seed))))
    assert alarms <= 3


@pytest.mark.parametrize(("before", "after", "within"), [(0.1, 0.3, 200), (0.1, 0.9, 100), (0.02, 0.2, 200)])
def test_a_jump_of_the_error_is_found_soon_and_placed_well(before: float, after: float, within: int) -> None:
    delays, misplaced = [], []
    for seed in range(12):
        at = 2_000 + 7 * seed
        found = opened(Stream(at + 1_000, np.empty((at + 1_000, 0)), errors([(at, before), (1_000, after)], seed)))
        row, event = next(one for one in found if one[0] >= at)
        assert (event.signal, event.direction, event.version) == ("error", "worse", 1)
        assert event.rows.start_offset >= at - 16
        assert event.rows.reference_start_offset is not None
        assert event.change_point.offset - 2_100 <= event.rows.reference_start_offset < event.change_point.offset
        delays.append(row - at)
        misplaced.append(abs(event.change_point.offset - at))
    assert np.quantile(delays, 0.9) <= within
    assert np.median(misplaced) <= 32


def test_an_error_that_falls_is_better_and_starts_nothing_worse() -> None:
    found = opened(Stream(6_000, np.empty((6_000, 0)), errors([(3_000, 0.5), (3_000, 0.1)], 1)))
    assert [(event.signal, event.direction) for _, event in found] == [("error", "better")]


def test_one_change_of_many_signals_is_one_episode_each() -> None:
    rows = 8_000
    features = numbers(rows, 4, 1)
    features[4_000:, 0] += 1e6
    features[4_000:, 1] -= 0.6
    features[4_000:, 2][np.random.default_rng(2).random(4_000) < 0.3] = np.nan
    stream = Stream(rows, features, errors([(4_000, 0.1), (4_000, 0.7)], 5))
    stream.latency = np.random.default_rng(3).lognormal(size=rows)
    stream.latency[4_000:] *= 3.0
    stream.confidence = np.full(rows, 0.9) + 0.01 * numbers(rows, 1, 4)[:, 0]
    stream.confidence[4_000:] -= 0.2
    found = opened(stream)
    assert Counter(event.signal for _, event in found) == dict.fromkeys(
        ("feature/f0", "feature/f1", "missing/f2", "latency_ms", "confidence", "error"), 1
    )
    assert all(4_000 <= row < 4_800 for row, _ in found)
    error = next(event for _, event in found if event.signal == "error")
    assert {one.name for one in error.implicated} <= {"f0", "f1"}


def test_a_second_change_supersedes_and_the_new_level_is_the_baseline() -> None:
    found = opened(Stream(9_000, np.empty((9_000, 0)), errors([(3_000, 0.1), (3_000, 0.4), (3_000, 0.8)], 2)))
    assert [event.direction for _, event in found] == ["worse", "worse"]
    assert found[1][1].before_mean == pytest.approx(0.4, abs=0.06)


def test_a_constant_that_moves_is_found_and_one_odd_value_is_not() -> None:
    features = np.full((6_000, 2), 5.0)
    features[3_000, 0] = 6.0
    features[3_000:, 1] = 5.1
    assert [event.signal for _, event in opened(Stream(6_000, features, np.zeros(6_000)))] == ["feature/f1"]


def test_a_signal_that_begins_late_is_watched_from_then_on() -> None:
    stream = Stream(8_000, numbers(8_000, 1, 1), np.zeros(8_000))
    stream.latency[3_000:] = np.random.default_rng(1).normal(20.0, 2.0, 5_000)
    stream.latency[6_000:] += 5.0
    assert [(event.signal, event.direction) for _, event in opened(stream)] == [("latency_ms", "worse")]


def test_absurd_numbers_neither_warn_nor_alarm() -> None:
    features = numbers(5_000, 2, 1)
    features[2_000:2_003, 0] = [3e38, -3e38, 1e308]
    stream = Stream(5_000, features, errors([(5_000, 0.1)], 1))
    stream.error[700] = np.inf
    assert opened(stream) == []


def test_the_error_of_a_regression_is_a_number_like_any_other() -> None:
    rows = 6_000
    error = np.abs(numbers(rows, 1, 3)[:, 0])
    error[3_000:] *= 2.5
    stream = Stream(rows, np.empty((rows, 0)), error, task="regression")
    stream.label = stream.error
    found = opened(stream)
    assert [(event.signal, event.direction) for _, event in found] == [("error", "worse")]
    assert 3_000 <= found[0][0] < 3_200
    assert found[0][1].before_mean == pytest.approx(0.8, abs=0.05)
    told = [event for _, event in play(stream, DEFAULTS, [500]) if isinstance(event, MetricsComputed)]
    assert told[0].window == {
        "mae": pytest.approx(error[:1_000].mean()),
        "rmse": pytest.approx(np.sqrt((error[:1_000] ** 2).mean())),
    }
