"""Baselines: outliers do not widen them, certainty is never assumed, blocks grow with correlation."""

import numpy as np
import pytest

from driftloop.detectors.baseline import block_rows, correlation_rows, of_number_columns, of_numbers, of_shares

CLIP = 8.0
RNG = np.random.default_rng(0)


def autocorrelated(rows: int, phi: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=rows + 200)
    values = np.zeros(rows + 200)
    for at in range(1, len(values)):
        values[at] = phi * values[at - 1] + noise[at]
    return values[200:]


def test_outliers_do_not_widen_a_baseline() -> None:
    values = RNG.normal(50.0, 2.0, 500)
    spoilt = values.copy()
    spoilt[::50] = 1e9
    clean, robust = of_numbers(values, CLIP), of_numbers(spoilt, CLIP)
    assert clean is not None
    assert robust is not None
    assert robust.center == pytest.approx(clean.center, abs=1.0)
    assert robust.scale < 2.5 * clean.scale


def test_a_baseline_maps_back_to_raw_values() -> None:
    found = of_numbers(RNG.normal(50.0, 2.0, 500), CLIP)
    assert found is not None
    z = found.transform(np.array([48.0, np.nan, 1e6]), 8.0)
    assert found.raw(float(z[0])) == pytest.approx(48.0)
    assert np.isnan(z[1])
    assert z[2] == 8.0


def test_missing_values_do_not_count_and_too_few_give_nothing() -> None:
    values = RNG.normal(size=100)
    with_gaps = np.full(300, np.nan)
    with_gaps[::3] = values
    assert of_numbers(with_gaps, CLIP) == of_numbers(values, CLIP)
    assert of_numbers(with_gaps[:30], CLIP) is None
    assert of_shares(np.full(100, np.nan)) is None


def test_a_share_is_never_certain() -> None:
    never, always = of_shares(np.zeros(500)), of_shares(np.ones(500))
    assert never is not None
    assert always is not None
    assert never.mean == 0.0
    assert always.mean == 1.0
    assert never.row_sd == pytest.approx(always.row_sd)
    assert 0.3 / never.row_sd > 1.0, "a jump to 30 % missing is large"
    assert (1 / 64) / never.block_sd(64) < 3.0, "a single missing value is not"


def test_a_constant_has_a_spread_in_which_any_move_is_large() -> None:
    found = of_numbers(np.full(500, 7.0), CLIP)
    assert found is not None
    assert found.transform(np.array([7.1]), 8.0)[0] == 8.0


@pytest.mark.parametrize(("phi", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_correlation_follows_the_lag_one_of_an_autoregression(phi: float, expected: float) -> None:
    found = np.median([correlation_rows(autocorrelated(500, phi, seed)) for seed in range(20)])
    assert found == pytest.approx(expected, rel=0.25)


def test_sd_of_a_block_mean_is_honest_about_correlation() -> None:
    values = autocorrelated(64 * 400, 0.5, 1)
    found = of_numbers(values, CLIP)
    assert found is not None
    measured = (found.transform(values, 50.0)).reshape(400, 64).mean(axis=1).std()
    assert found.block_sd(64) == pytest.approx(measured, rel=0.15)


def test_blocks_are_as_long_as_rows_remember() -> None:
    assert block_rows(1.0, 16, 1024) == 16
    assert block_rows(19.0, 16, 1024) == 256
    assert block_rows(399.0, 64, 1024) == 1024
    assert block_rows(1.0, 64, 32) == 64


@pytest.mark.parametrize("seed", range(5))
def test_all_columns_at_once_are_each_column_alone_to_the_bit(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(500, 9)) * 10.0
    values[:, 1], values[:, 2], values[:, 3] = 5.0, np.exp(values[:, 2]), np.nan
    values[::7, 4] = np.nan
    values[:, 5] = values[:, 5].cumsum()
    values[30:, 6] = np.nan
    values[20:, 7] = np.nan
    values[::100, 8] = 1e300
    assert of_number_columns(values, CLIP) == [of_numbers(column, CLIP) for column in values.T]


def test_a_skewed_signal_is_measured_as_its_later_rows_will_be() -> None:
    """Confidence near 1 with a long tail: mean and sd of clipped z, or each block lies to one side of the level for ever."""
    chance = np.random.default_rng(7)
    for values in (1.0 - 0.5 * chance.beta(0.05, 1.0, 4_000), chance.pareto(2.5, 4_000), np.exp(chance.normal(0.0, 1.5, 4_000))):
        found = of_numbers(values, CLIP)
        assert found is not None
        z = found.transform(values, CLIP)
        assert abs(float(z.mean()) - found.mean) < 1e-9
        assert abs(float(z.std()) - found.row_sd) < 1e-9
        assert of_number_columns(values[:, None], CLIP) == [found]
