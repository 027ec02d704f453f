"""Versions: rows sorted by version, and which rows begin a version anew."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftloop.detectors.versions import MAX_VERSIONS, version_runs
from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.tests.watch_streams import Stream, table_of


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2**31 - 1)), max_size=40))
def test_runs_are_the_stable_sort_by_model_and_version(pairs: list[tuple[int, int]]) -> None:
    model, version = np.array([pair[0] for pair in pairs], np.int64), np.array([pair[1] for pair in pairs], np.int64)
    runs = version_runs(model, version)
    assert runs.rows.tolist() == sorted(range(len(pairs)), key=lambda at: pairs[at])
    found = [
        (key, [pairs[row] for row in runs.rows[start:end]])
        for key, start, end in zip(runs.keys, runs.starts, runs.ends, strict=True)
    ]
    assert [key for key, _ in found] == sorted(set(pairs))
    assert all(set(rows) == {key} for key, rows in found)


def test_of_too_many_versions_the_longest_unseen_is_forgotten_with_its_parts() -> None:
    rows = 400
    stream = Stream(rows, np.empty((rows, 0)), np.zeros(rows))
    stream.version = 1 + np.arange(rows) // 20
    watch = Watch(MonitorConfig(), "driftloop.", 0, table_of(["m"]))
    parts: dict[str, bytes] = {}
    for inputs, joined in stream.batches([90]):
        watch.observe(inputs, joined)
        for key, data in watch.take_dirty().items():
            if data is None:
                del parts[key]
            else:
                parts[key] = data
    kept = {int(key.split("/")[3]) for key in parts if key.startswith("w/v/")}
    assert kept == set(range(21 - MAX_VERSIONS, 21))
    assert len(watch.roster.by_slot) <= MAX_VERSIONS + 1


def test_state_stays_bounded_however_long_the_stream() -> None:
    rows = 12_000
    stream = Stream(rows, np.random.default_rng(0).normal(size=(rows, 3)), np.zeros(rows))
    sizes = []
    watch = Watch(MonitorConfig(), "driftloop.", 0, table_of(["m"]))
    for inputs, joined in stream.batches([4_000]):
        watch.observe(inputs, joined)
        sizes.append(sum(len(data or b"") for data in watch.take_dirty().values()))
    assert sizes[-2] < 1.15 * sizes[-3]
    assert max(sizes) < 60_000
