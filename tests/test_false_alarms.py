"""Quiet streams stay quiet and changes are found, at the default settings; figures are counts of rows, never of time."""

import numpy as np
import pytest

from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened
from driftloop.tests.watch_streams import Stream, errors, numbers, play

ROWS = 40_000
BATCHES = [5_000] * (ROWS // 5_000)


def opened(stream: Stream, sizes: list[int]) -> list[DriftOpened]:
    return [event for _, event in play(stream, MonitorConfig(), sizes) if isinstance(event, DriftOpened)]


def autoregressive(rows: int, memory: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=rows)
    for row in range(1, rows):
        noise[row] += memory * noise[row - 1]
    return noise[:, None]


QUIET = {
    "normal": lambda rng, rows: rng.normal(100.0, 20.0, (rows, 5)),
    "lognormal": lambda rng, rows: np.exp(rng.normal(0.0, 1.5, (rows, 5))),
    "mostly zero": lambda rng, rows: np.where(rng.random((rows, 5)) < 0.95, 0.0, rng.exponential(3.0, (rows, 5))),
    "correlated": lambda rng, rows: np.hstack([autoregressive(rows, memory, 5) for memory in (0.5, 0.9)]),
}


@pytest.mark.parametrize("kind", QUIET)
def test_a_quiet_stream_of_numbers_opens_no_episode(kind: str) -> None:
    values = QUIET[kind](np.random.default_rng(11), ROWS)
    assert opened(Stream(ROWS, values, errors([(ROWS, 0.1)], 12)), BATCHES) == []


@pytest.mark.parametrize("shape", [(0.05, 1.0), (0.3, 2.0)])
def test_skewed_confidence_opens_no_episode(shape: tuple[float, float]) -> None:
    stream = Stream(ROWS, numbers(ROWS, 1, 13), errors([(ROWS, 0.05)], 14))
    stream.confidence = 1.0 - 0.5 * np.random.default_rng(15).beta(*shape, ROWS)
    assert opened(stream, BATCHES) == []


@pytest.mark.parametrize(("before", "after", "within_rows"), [(0.1, 0.9, 80), (0.1, 0.3, 400), (0.4, 0.6, 600)])
def test_a_rise_of_the_error_is_one_worse_episode_with_its_change_point(before: float, after: float, within_rows: int) -> None:
    for seed in range(5):
        found = opened(Stream(6_000, numbers(6_000, 1, seed), errors([(3_000, before), (3_000, after)], seed)), [1_000] * 6)
        assert [(event.signal, event.direction) for event in found] == [("error", "worse")]
        assert 3_000 <= found[0].detected_at.offset < 3_000 + within_rows
        assert abs(found[0].change_point.offset - 3_000) <= within_rows / 2


def test_a_fall_of_the_error_is_better() -> None:
    found = opened(Stream(6_000, numbers(6_000, 1, 3), errors([(3_000, 0.6), (3_000, 0.2)], 3)), [1_000] * 6)
    assert [(event.signal, event.direction) for event in found] == [("error", "better")]
