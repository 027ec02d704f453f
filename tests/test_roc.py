"""The area under the ROC curve from bins is near that of the scores themselves, finest where sure models score."""

import numpy as np
import pytest

from driftloop.detectors.roc import BINS, area, score_bins


def exact(negatives: np.ndarray, positives: np.ndarray) -> float:
    above = (positives[:, None] > negatives).mean()
    return float(above + 0.5 * (positives[:, None] == negatives).mean())


@pytest.mark.parametrize("power", [1, 5, 20])
def test_the_area_is_that_of_the_scores(power: int) -> None:
    """The higher the power, the nearer to 0 and 1 the scores lie."""
    rng = np.random.default_rng(power)
    negatives, positives = rng.random(800) ** power, 1 - rng.random(700) ** power
    counts = [np.bincount(score_bins(scores), minlength=BINS) for scores in (negatives, positives)]
    assert area(counts[0], counts[1]) == pytest.approx(exact(negatives, positives), abs=0.004)


def test_bins_rise_with_the_score_and_take_what_lies_beyond() -> None:
    scores = np.sort(np.concatenate([np.random.default_rng(0).random(5_000), [0.0, 0.5, 1.0], 2.0 ** -np.arange(1, 40)]))
    bins = score_bins(scores)
    assert (np.diff(bins) >= 0).all()
    assert (bins.min(), bins.max()) == (0, BINS - 1)
    assert score_bins(np.array([-3.0, 7.0])).tolist() == score_bins(np.array([0.0, 1.0])).tolist()


def test_without_both_kinds_there_is_no_area() -> None:
    assert area(np.zeros(4, int), np.ones(4, int)) is None
    assert area(np.ones(4, int), np.zeros(4, int)) is None
    assert area(np.array([1, 0]), np.array([0, 1])) == 1.0
    assert area(np.array([1, 1]), np.array([1, 1])) == 0.5
