"""The watch as a whole: verdicts do not depend on cuts or restarts; changes are found, quiet streams stay quiet."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import SnapshotInvalid
from driftloop.schemas.events import DriftClosed, DriftOpened, DriftUpdated, MetricsComputed
from driftloop.tests.watch_streams import Stream, errors, numbers, play, table_of

QUICK = MonitorConfig(
    warm_up_rows=100, input_block_rows=16, metrics_every_rows=70, settle_rows=300, milestones=(60, 200), idle_rows=90
)


def eventful(seed: int = 3) -> tuple[Stream, list[str]]:
    """Return two models with gaps, shifts, two versions that come and go, more versions than are kept, and scores."""
    rows = 1600
    features = numbers(rows, 3, seed)
    features[700:, 0] += 3.0
    features[900:, 1] *= np.where(np.random.default_rng(seed).random(700) < 0.5, np.nan, 1.0)
    stream = Stream(rows, features, errors([(800, 0.1), (800, 0.8)], seed), delay=25)
    rng = np.random.default_rng(seed + 1)
    stream.model = rng.integers(0, 2, rows)
    stream.version[400:520] = 2
    stream.version[1000:1300] = 2 + rng.integers(0, 2, 300)
    stream.version[1450:1480] = 10 + np.arange(30) // 2
    stream.scores = rng.dirichlet((1, 1, 1), rows)
    stream.confidence = np.where(rng.random(rows) < 0.1, np.nan, stream.scores.max(axis=1))
    stream.confidence[1200:] += 1.0
    stream.latency = np.where(np.arange(rows) > 300, rng.lognormal(size=rows), np.nan)
    return stream, ["a", "b"]


def test_an_eventful_stream_says_everything() -> None:
    stream, names = eventful()
    kinds = {type(event) for _, event in play(stream, QUICK, [10_000], names)}
    assert kinds == {DriftOpened, DriftUpdated, DriftClosed, MetricsComputed}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(3, 900), min_size=2, max_size=6), st.integers(0, 3))
def test_verdicts_do_not_depend_on_cuts(sizes: list[int], seed: int) -> None:
    stream, names = eventful(seed)
    assert play(stream, QUICK, sizes, names) == play(stream, QUICK, [100_000], names)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(40, 700), min_size=1, max_size=5), st.integers(0, 20))
def test_a_restored_watch_goes_on_as_if_nothing_had_been(sizes: list[int], stop: int) -> None:
    stream, names = eventful()
    table, events, parts = table_of(names), [], {}
    watch = Watch(QUICK, "driftloop.", 0, table)
    for turn, (inputs, joined) in enumerate(stream.batches(sizes)):
        events += watch.observe(inputs, joined)
        if turn % 3 == stop % 3:
            for key, data in watch.take_dirty().items():
                parts.pop(key, None) if data is None else parts.update({key: data})
        if turn == stop:
            watch = Watch(QUICK, "driftloop.", 0, table)
            watch.restore(parts)
    assert events == play(stream, QUICK, [100_000], names)


def test_taking_the_state_twice_gives_nothing_and_pieces_are_bounded() -> None:
    stream, names = eventful()
    watch = Watch(QUICK, "driftloop.", 0, table_of(names))
    watch.observe(*stream.batch(0, 1000))
    parts = watch.take_dirty()
    assert parts
    assert all(key.startswith("w/") and len(data or b"") <= 900_000 for key, data in parts.items())
    assert not watch.take_dirty()


def test_spoilt_state_is_refused() -> None:
    stream, names = eventful()
    watch = Watch(QUICK, "driftloop.", 0, table_of(names))
    watch.observe(*stream.batch(0, 1000))
    parts = {key: data for key, data in watch.take_dirty().items() if data is not None}
    key = next(key for key in parts if key.startswith("w/v/"))
    for spoilt in (b"", b"\xff" * 20, parts[key][:-7]):
        with pytest.raises(SnapshotInvalid, match="state of the watch"):
            Watch(QUICK, "driftloop.", 0, table_of(names)).restore({**parts, key: spoilt})


def test_nothing_that_the_watch_is_made_of_knows_the_watch() -> None:
    room = Path(__file__).parent.parent / "detectors"
    parts = ("step", "agenda", "watch_state", "roster", "lanes", "episodes", "positions", "faults", "versions")
    assert [name for name in parts if "from .watch import" in (room / f"{name}.py").read_text("utf-8")] == []
