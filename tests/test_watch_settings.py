"""Any admissible settings and any shape of signal: the watch raises nothing, and says the same however the log is cut."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened, MetricsComputed
from driftloop.tests.watch_streams import Stream, errors, numbers, play, table_of

ROWS = 1_300
Shape = Callable[[np.random.Generator, int], np.ndarray]


def autoregressive(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    values = rng.normal(size=rows)
    for row in range(1, rows):
        values[row] += memory * values[row - 1]
    return values


SHAPES: dict[str, Shape] = {
    "noise": lambda rng, rows: rng.normal(size=rows),
    "row counter": lambda rng, rows: np.arange(rows) * 1.0,
    "falling counter": lambda rng, rows: -1e9 * np.arange(rows),
    "saw tooth": lambda rng, rows: np.arange(rows) % 777 * 1.0,
    "slow sine": lambda rng, rows: np.sin(np.arange(rows) / 200),
    "hour of the day": lambda rng, rows: np.arange(rows) // 60 % 24 * 1.0,
    "steps": lambda rng, rows: np.arange(rows) // 300 * 1.0,
    "autoregressive 0.99": lambda rng, rows: autoregressive(rng, rows, 0.99),
    "random walk": lambda rng, rows: np.cumsum(rng.normal(size=rows)),
    "alternating": lambda rng, rows: np.arange(rows) % 2 * 1.0,
    "constant": lambda rng, rows: np.full(rows, 7.0),
    "constant that jumps": lambda rng, rows: np.where(np.arange(rows) < rows // 2, 1e30, -1e30),
    "nearly constant": lambda rng, rows: 1e9 + rng.integers(0, 2, rows) * 1e-6,
    "epoch": lambda rng, rows: 1.7e9 + np.arange(rows) + rng.normal(size=rows),
    "one odd value": lambda rng, rows: np.where(np.arange(rows) == 40, 1e308, 0.0),
    "largest numbers": lambda rng, rows: np.where(rng.random(rows) < 0.5, 1.7e308, -1.7e308),
    "smallest numbers": lambda rng, rows: rng.random(rows) * 5e-324,
    "all gone": lambda rng, rows: np.full(rows, np.nan),
    "gone, then there": lambda rng, rows: np.where(np.arange(rows) < rows // 2, np.nan, rng.normal(size=rows)),
    "there, then gone": lambda rng, rows: np.where(np.arange(rows) < rows // 2, rng.normal(size=rows), np.nan),
    "gaps in runs": lambda rng, rows: np.where(np.arange(rows) // 90 % 2 == 0, rng.normal(size=rows), np.nan),
    "rare values": lambda rng, rows: np.where(rng.random(rows) < 0.02, 1.0, np.nan),
}
shapes = st.sampled_from(sorted(SHAPES))
SLOW = ("row counter", "saw tooth", "slow sine", "hour of the day", "steps", "autoregressive 0.99", "random walk")


def whole(least: int, most: int) -> st.SearchStrategy[int]:
    """Return whole numbers, mostly small or at the ends."""
    return st.one_of(
        st.integers(least, min(most, least + 40)), st.integers(least, min(most, 2_000)), st.sampled_from([least, most])
    )


configs = st.builds(
    MonitorConfig,
    warm_up_rows=st.one_of(st.integers(50, 600), st.sampled_from([50, 100_000])),
    error_block_rows=whole(1, 100_000),
    input_block_rows=whole(1, 100_000),
    max_block_rows=whole(1, 100_000),
    clip_sd=st.one_of(st.floats(1.0, 20.0), st.sampled_from([1.0, 10_000.0])),
    adwin_delta=st.sampled_from([1e-300, 1e-9, 0.002, 0.5, 0.999]),
    page_hinkley_delta=st.sampled_from([0.0, 0.1, 1e6]),
    page_hinkley_threshold=st.sampled_from([1e-300, 1.0, 20.0, 1e6]),
    min_effect=st.sampled_from([0.0, 0.2, 1e300]),
    medium_effect=st.sampled_from([1e-300, 0.5]),
    high_effect=st.sampled_from([1e-300, 1.0]),
    settle_rows=whole(100, 10**9),
    milestones=st.lists(st.integers(-5, 900), max_size=4).map(tuple),
    idle_rows=whole(1, 10**9),
    metrics_every_rows=whole(10, 10**9),
)


def stream_of(kinds: tuple[str, str, str, str], seed: int) -> Stream:
    """Return a stream whose features, confidence and latency have these shapes, with two versions taking turns."""
    rng = np.random.default_rng(seed)
    first, second, confidence, latency = (SHAPES[kind](rng, ROWS) for kind in kinds)
    error = np.where(np.arange(ROWS) // 60 % 7 == 0, 1.0, errors([(ROWS // 2, 0.1), (ROWS - ROWS // 2, 0.6)], seed))
    stream = Stream(ROWS, np.column_stack((first, second)), error, delay=20)
    stream.version = 1 + (np.arange(ROWS) // 400) % 2
    stream.confidence, stream.latency = confidence, latency
    return stream


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs, st.tuples(shapes, shapes, shapes, shapes), st.integers(0, 3), st.integers(7, 900))
@example(MonitorConfig(), ("row counter", "noise", "noise", "noise"), 0, 500)
@example(MonitorConfig(max_block_rows=100_000, warm_up_rows=50), ("saw tooth", "slow sine", "random walk", "steps"), 1, 64)
@example(MonitorConfig(input_block_rows=100_000, error_block_rows=100_000), ("noise", "noise", "noise", "noise"), 1, 64)
def test_the_watch_never_raises_and_says_the_same_however_it_is_cut(
    config: MonitorConfig, kinds: tuple[str, str, str, str], seed: int, size: int
) -> None:
    stream = stream_of(kinds, seed)
    watch = Watch(config, "driftloop.", 0, table_of(["m"]))
    told = []
    for inputs, joined in stream.batches([size]):
        told += watch.observe(inputs, joined)
    assert watch.faults == []
    assert told == play(stream, config, [10 * ROWS])


@pytest.mark.parametrize("kind", SLOW)
def test_a_signal_that_remembers_longer_than_the_warm_up_blinds_no_other(kind: str) -> None:
    rows = 9_000
    features = np.column_stack((SHAPES[kind](np.random.default_rng(1), rows), numbers(rows, 1, 2)[:, 0]))
    features[6_000:, 1] += 3.0
    stream = Stream(rows, features, errors([(7_000, 0.1), (2_000, 0.6)], 3))
    events = play(stream, MonitorConfig(), [1_000])
    opened = {event.signal: order // 2 for order, event in events if isinstance(event, DriftOpened)}
    assert 6_000 <= opened["feature/f1"] < 6_800
    assert 7_000 <= opened["error"] < 7_080
    assert sum(isinstance(event, MetricsComputed) for _, event in events) == 9


def test_errors_in_runs_longer_than_a_block_are_watched() -> None:
    wrong = ((np.arange(6_000) // 60) % 10 == 0) * 1.0
    wrong[4_000:] = 1.0
    found = [event for _, event in play(Stream(6_000, np.empty((6_000, 0)), wrong), MonitorConfig(), [900])]
    opened = [event for event in found if isinstance(event, DriftOpened)]
    assert [(event.signal, event.direction) for event in opened] == [("error", "worse")]
    assert opened[0].detected_at.offset >= 4_000
