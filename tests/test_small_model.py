"""The small model learns, counts a missing value as the mean, and gives probabilities or numbers."""

import numpy as np
import pytest

from driftloop.compression.runtime import Runner, outcomes
from driftloop.compression.small_model import SmallModelConfig, train_small_model
from driftloop.schemas.errors import JobError
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, turning_rows


def test_it_learns_and_gives_probabilities() -> None:
    rows = turning_rows(2000, 1)
    runner = Runner(train_small_model(rows, signature(4, 2)), signature(4, 2))
    later = turning_rows(1000, 2)
    scores = runner.scores(later.features)
    assert outcomes(scores, later, "classification").mean() > 0.88
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_a_missing_value_counts_as_the_mean() -> None:
    rows = turning_rows(500, 1)
    rows.features[::7, 2] = np.nan
    runner = Runner(train_small_model(rows, signature(4, 2), SmallModelConfig(widths=(16,))), signature(4, 2))
    missing, filled = rows.features[:1].copy(), rows.features[:1].copy()
    missing[0, 2], filled[0, 2] = np.nan, np.nanmean(rows.features[:, 2])
    assert np.allclose(runner.scores(missing), runner.scores(filled), atol=1e-5)


def test_it_learns_numbers() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1000, 4)).astype(np.float32)
    rows = Rows(features, 100 + 50 * features[:, 0].astype(np.float64), np.arange(1000))
    runner = Runner(train_small_model(rows, signature(4, 0)), signature(4, 0))
    assert outcomes(runner.scores(features), rows, "regression").mean() > -4


def test_rows_without_one_finite_answer_are_an_error() -> None:
    rows = turning_rows(50, 1)
    rows.features[:] = np.inf
    with pytest.raises(JobError, match="finite"):
        train_small_model(rows, signature(4, 2))
