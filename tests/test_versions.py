"""Versions: rows sorted by version, and which rows begin a version anew."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftloop.detectors.monitor import Monitor
from driftloop.detectors.versions import version_runs
from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, play, record, small
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
    assert kept == set(range(21 - MonitorConfig().max_versions, 21))
    assert len(watch.roster.by_slot) <= MonitorConfig().max_versions + 1


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


def test_a_layout_whose_rows_are_all_refused_is_saved_with_its_inputs() -> None:
    config = small(max_versions=1, max_new_versions_per_minute=1)
    monitor = Monitor(config, "driftloop.", 0)
    play(monitor, versions_log([1] * 60 + [2] * 3), 40)
    parts = {name: data for name, data in monitor.take_dirty().items() if data is not None}
    signature = {"task": "classification", "features": ["b", "c"], "classes": [0, 1]}
    value = {"type": "model_registered", "model": "m", "version": 1, "digest": "d", "uri": "u", "size_bytes": 1}
    play(monitor, [record("models", 0, START_MS + 100, b"m", value | {"signature": signature})], 1)
    effects = play(monitor, versions_log([7, 8, 9], 101, first=100), 1)
    assert [letter.disposition for letter in effects.dead_letters] == ["over_limit"] * 3
    for name, data in monitor.take_dirty().items():
        if data is None:
            parts.pop(name, None)
        else:
            parts[name] = data
    assert Monitor.restore(config, "driftloop.", 0, parts).snapshot() == monitor.snapshot()


def versions_log(versions: list[int], start_ms: int = 0, step_ms: int = 1, first: int = 0) -> list[Record]:
    found = []
    for at, version in enumerate(versions, first):
        value = {"model": "m", "version": version, "prediction_id": f"p{at}", "output": 1, "features": {"a": 0.5}}
        found.append(record("predictions", at, START_MS + start_ms + (at - first) * step_ms, b"m", value))
    return found


def test_a_flood_of_versions_is_refused_and_told_once_a_minute() -> None:
    config = MonitorConfig()
    monitor = Monitor(config, "driftloop.", 0)
    effects = play(monitor, versions_log(list(range(1, 3_001)), step_ms=40), 700)
    refused = [letter.disposition for letter in effects.dead_letters]
    assert set(refused) == {"over_limit"}
    # Two minutes: the first ones, those of a minute at once, and those that come back meanwhile.
    assert len(refused) >= 3_000 - config.max_versions - 3 * config.max_new_versions_per_minute
    assert len(monitor.watch.roster.by_slot) <= config.max_versions + 1
    assert 2 <= len(effects.notices) <= 3
    assert all(line.startswith("monitor.max_new_versions_per_minute is reached") for line in effects.notices)
    # And soon after there is room again.
    assert not play(monitor, versions_log([9_999], start_ms=130_000, first=3_000), 1).dead_letters


def test_versions_in_use_do_not_give_way_to_a_flood_nor_do_those_of_the_models_topic() -> None:
    config = small(max_versions=2, idle_rows=50)
    monitor = Monitor(config, "driftloop.", 0)
    play(monitor, versions_log([1] * 60 + list(range(100, 130)) + [1] * 10, step_ms=20), 40)
    assert monitor.watch.roster.models[0].versions[1].predictions == 70
    signature = {"task": "classification", "features": ["a"], "classes": [0, 1]}
    value = {
        "type": "model_registered",
        "model": "m",
        "version": 5,
        "digest": "d",
        "uri": "u",
        "size_bytes": 1,
        "signature": signature,
    }
    at_ms = 2_100
    assert not play(monitor, [record("models", 0, START_MS + at_ms, b"m", value)], 1).dead_letters
    play(monitor, versions_log([5, *range(200, 230), 5], at_ms, first=100), 7)
    assert monitor.watch.roster.models[0].versions[5].predictions == 2
    promoted = {"type": "model_promoted", "model": "m", "version": 6, "digest": "d", "reason": "r"}
    play(monitor, [record("models", 1, START_MS + 2_200, b"m", promoted)], 1)
    assert not play(monitor, versions_log([6], 2_201, first=140), 1).dead_letters
    assert set(monitor.watch.roster.models[0].versions) == {5, 6}
