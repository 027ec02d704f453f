"""Change points: the split of two levels, how sure it is, and how late it may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.detectors.change_point import best_split


def test_a_clean_step_is_found_exactly() -> None:
    split = best_split(np.array([0.0] * 7 + [1.0] * 3), np.full(10, 16.0), 0.01)
    assert split is not None
    assert (split.at, split.latest, split.before, split.after) == (7, 7, 0.0, 1.0)


def test_blocks_without_rows_are_passed_over() -> None:
    split = best_split(np.array([0.0, np.nan, 0.0, np.nan, 2.0, 2.0]), np.array([8.0, 0, 8, 0, 8, 8]), 0.01)
    assert split is not None
    assert (split.at, split.before, split.after) == (4, 0.0, 2.0)


@pytest.mark.parametrize("rows", [[], [5.0], [0.0, 5.0]])
def test_fewer_than_two_blocks_with_rows_have_no_split(rows: list[float]) -> None:
    assert best_split(np.zeros(len(rows)), np.array(rows), 1.0) is None


@given(st.integers(5, 100), st.integers(5, 30), st.floats(0.4, 3.0), st.integers(0, 1000))
def test_latest_is_rarely_before_the_truth_and_never_before_the_best(before: int, after: int, step: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    means = np.concatenate((rng.normal(size=before), step * 4 + rng.normal(size=after))) / 4.0
    split = best_split(means, np.full(before + after, 16.0), 1.0)
    assert split is not None
    assert 1 <= split.at <= split.latest < before + after


def test_rows_from_the_latest_split_on_lie_after_the_change() -> None:
    early = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        means = np.concatenate((rng.normal(size=60), 1.5 + rng.normal(size=12))) / 4.0
        split = best_split(means, np.full(72, 16.0), 1.0)
        assert split is not None
        early += split.latest < 60
    assert early <= 24, "more than about one in ten is no 95 % interval"


def test_evidence_of_shares_is_the_likelihood_ratio() -> None:
    split = best_split(np.array([0.1] * 10 + [0.6] * 2), np.full(12, 16.0), 0.09)
    assert split is not None
    ones, rows = np.array([16.0, 19.2]), np.array([160.0, 32.0])

    def log_likelihood(one: float, total: float, share: float) -> float:
        return float(one * np.log(share) + (total - one) * np.log(1 - share))

    pooled = ones.sum() / rows.sum()
    apart = sum(log_likelihood(one, total, one / total) for one, total in zip(ones, rows, strict=True))
    together = sum(log_likelihood(one, total, pooled) for one, total in zip(ones, rows, strict=True))
    assert split.evidence_of_shares() == pytest.approx(2 * (apart - together))


def test_evidence_of_all_and_nothing_is_finite() -> None:
    split = best_split(np.array([0.0, 0.0, 1.0]), np.full(3, 17.0), 0.01)
    assert split is not None
    assert np.isfinite(split.evidence_of_shares())
