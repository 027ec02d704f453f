"""The contract of every change detector: finds shifts both ways, stays quiet, and goes on from its state to the bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from driftloop.detectors.adwin import Adwin
from driftloop.detectors.detector import RESTORERS, Detector, load, save
from driftloop.detectors.page_hinkley import PageHinkley

MAKERS: dict[str, Callable[[], Detector]] = {
    "adwin": lambda: Adwin(0.002),
    "page_hinkley": lambda: PageHinkley(0.1, 20.0),
}
every_detector = pytest.mark.parametrize("name", sorted(RESTORERS))


def first_alarm(detector: Detector, values: np.ndarray) -> int | None:
    return next((at for at, value in enumerate(values.tolist()) if detector.update(value)), None)


def normal(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows)


def test_every_detector_is_under_contract() -> None:
    assert set(MAKERS) == set(RESTORERS)


@every_detector
@pytest.mark.parametrize("shift", [3.0, -3.0])
def test_finds_a_shift_of_three_within_twelve_blocks(name: str, shift: float) -> None:
    delays = []
    for seed in range(10):
        detector = MAKERS[name]()
        assert first_alarm(detector, normal(40, seed)) is None
        found = first_alarm(detector, shift + normal(40, seed + 100))
        assert found is not None
        delays.append(found + 1)
    assert np.median(delays) <= 12


@every_detector
def test_is_quiet_on_a_steady_series(name: str) -> None:
    alarms = sum(first_alarm(MAKERS[name](), normal(300, seed)) is not None for seed in range(20))
    assert alarms <= 4, "an alarm is judged once more before it is told, but must not be the rule"


@every_detector
def test_goes_on_after_a_change_without_a_reset(name: str) -> None:
    detector = MAKERS[name]()
    levels = (0.0, 5.0, 0.0)
    found = [first_alarm(detector, level + normal(60, seed)) for seed, level in enumerate(levels)]
    assert found[0] is None
    assert found[1] is not None
    assert first_alarm(detector, levels[1] + normal(60, 7)) is not None or found[2] is not None


@every_detector
@settings(max_examples=25, deadline=None)
@given(before=st.integers(0, 80), seed=st.integers(0, 1000))
def test_state_restores_to_the_bit(name: str, before: int, seed: int) -> None:
    values = np.concatenate((normal(60, seed), 2.5 + normal(60, seed + 1))).tolist()
    whole = MAKERS[name]()
    told = [whole.update(value) for value in values]
    half = MAKERS[name]()
    for value in values[:before]:
        half.update(value)
    again = load(save(half))
    assert [again.update(value) for value in values[before:]] == told[before:]
    assert save(again) == save(whole)
    assert again.parameters() == whole.parameters()


@every_detector
@pytest.mark.parametrize("spoilt", [(), (0.1,), (0.1, b"short"), ("a", "b", "c"), None, 7])
def test_refuses_a_state_that_is_not_its_own(name: str, spoilt: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        load((name, spoilt))


def test_refuses_an_unknown_detector() -> None:
    with pytest.raises(KeyError):
        load(("no such detector", ()))


@pytest.mark.parametrize("seed", range(6))
def test_page_hinkley_says_what_rivers_says_and_holds_its_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(level, 1.0, 80) for level in (0.0, 3.0, -2.0, -2.0, 1.0)])
    ours, rivers = PageHinkley(0.1, 20.0), drift.PageHinkley(min_instances=5, delta=0.1, threshold=20.0, alpha=1.0, mode="both")
    changes = 0
    for value in values.tolist():
        rivers.update(value)
        assert ours.update(value) == rivers.drift_detected
        changes += rivers.drift_detected
        inner: Any = rivers
        sums = (inner._sum_increase, inner._sum_decrease, inner._min_increase, inner._max_decrease)
        assert ours.state() == (0.1, 20.0, inner._x_mean.n, inner._x_mean.get(), *sums, rivers.drift_detected)
    assert changes >= 3
