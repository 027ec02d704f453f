"""Evictions and room: a flood of names or features costs what the settings say, and those that matter stay."""

from __future__ import annotations

import gc
import json
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from driftloop.detectors import monitor as monitor_module
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import unpack_parts
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, merged, play, record, small

MODELS = "w/m/", "w/v/", "w/i/", "i/t/"
FEW = {"max_models": 4, "model_idle_s": 3600.0, "warm_up_rows": 50}


def prediction(at: int, model: str, second: float, features: Any = None, version: int = 1) -> Record:
    said = {"a": 0.5} if features is None else features
    value = {"model": model, "version": version, "prediction_id": f"p{at}", "output": 1, "features": said}
    return record("predictions", at, START_MS + round(second * 1000), model.encode(), value)


def label(at: int, ident: int, model: str, second: float) -> Record:
    value = {"model": model, "prediction_id": f"p{ident}", "label": 1}
    return record("labels", at, START_MS + round(second * 1000), model.encode(), value)


def registration(at: int, model: str, second: float, features: int = 1) -> Record:
    signature = {"task": "classification", "features": [f"f{one}" for one in range(features)], "classes": [0, 1]}
    value = {"type": "model_registered", "model": model, "version": 7, "digest": "d", "uri": "u", "size_bytes": 1}
    return record("models", at, START_MS + round(second * 1000), model.encode(), value | {"signature": signature})


def names(monitor: Monitor) -> set[str]:
    return set(monitor.table.slots)


def test_names_beyond_the_bound_are_refused_told_once_and_give_way_to_each_other_later() -> None:
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    effects = play(monitor, [prediction(at, f"m{at}", at / 1000) for at in range(100)], 7)
    assert [letter.disposition for letter in effects.dead_letters] == ["over_limit"] * 96
    assert "models of a partition must be at most 4, got 'm4'" in effects.dead_letters[0].message
    assert len(effects.notices) == 1
    assert effects.notices[0].startswith("monitor.max_models is reached")
    assert names(monitor) == {"m0", "m1", "m2", "m3"}
    effects = play(monitor, [prediction(100, "late", 1.5), prediction(101, "later", 61.0)], 1)
    assert not effects.dead_letters[1:]
    assert names(monitor) == {"late", "m1", "m2", "m3"}
    assert effects.counters["models_evicted"] == 1
    assert "95 more" in effects.notices[0]


def test_registered_steady_and_labelled_models_do_not_give_way_to_new_names() -> None:
    log = [registration(0, "registered", 0)]
    log += [prediction(at, "steady", 0.1) for at in range(50)]
    log += [prediction(50, "labelled", 0.2), label(0, 50, "labelled", 0.3)]
    log += [prediction(51 + at, f"m{at}", 1 + at / 10) for at in range(300)]
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    effects = play(monitor, merged(log), 13)
    assert {"registered", "steady", "labelled"} < names(monitor)
    assert len(monitor.table) == len(names(monitor)) == 4
    assert effects.counters["models_evicted"] > 20


def test_a_model_that_is_unseen_for_long_gives_way_whatever_it_was() -> None:
    log = [prediction(at, f"steady{at % 4}", 0.1) for at in range(400)]
    log += [prediction(400, "new", 10), prediction(401, "new", 11), prediction(402, "new", 3601), prediction(403, "new", 3602)]
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    effects = play(monitor, log, 50)
    assert [letter.offset for letter in effects.dead_letters] == [400, 401]
    assert names(monitor) == {"new", "steady1", "steady2", "steady3"}


def test_a_registered_model_has_room_at_once_until_all_are_registered() -> None:
    log = [prediction(at, f"steady{at % 4}", at / 1000) for at in range(400)]
    log += [registration(at, f"r{at}", 1 + at) for at in range(5)]
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    effects = play(monitor, merged(log), 50)
    assert names(monitor) == {"r0", "r1", "r2", "r3"}
    assert [(letter.topic, letter.offset, letter.disposition) for letter in effects.dead_letters] == [
        ("driftloop.models", 4, "over_limit")
    ]


@pytest.mark.parametrize("setting", ["max_total_features", "max_total_classes"])
def test_features_and_scores_of_all_models_are_bounded(setting: str) -> None:
    log = []
    for at in range(40):
        value = {"model": f"m{at}", "version": 1, "prediction_id": "p", "output": 1}
        value |= {"features": {f"f{one}": 0.5 for one in range(10)}, "scores": [0.1] * 10}
        log.append(record("predictions", at, START_MS + at, b"m%d" % at, value))
    monitor = Monitor(small(**{setting: 100}), "driftloop.", 0)
    effects = play(monitor, log, 9)
    assert len(effects.dead_letters) == 30
    assert effects.notices[0].startswith(f"monitor.{setting} is reached")
    wide = registration(0, "r", 0.5, features=60)
    play(monitor, [wide], 1)
    assert "r" in names(monitor)
    taken = monitor.table.room.taken
    assert all(mine <= limit for mine, limit in zip(taken, monitor.table.room.limits, strict=True))


@pytest.mark.parametrize("ahead", [False, True])
def test_the_parts_of_a_model_that_gave_way_go_and_its_labels_join_no_other(ahead: bool) -> None:
    config = small(**FEW | {"max_models": 1})
    monitor, parts = Monitor(config, "driftloop.", 0), {}
    log = [prediction(0, "old", 0), prediction(1, "new", 0.1), prediction(2, "new", 1.2)]
    for one in log:
        play(monitor, [one], 1)
        found = monitor.take_new() if ahead else {}
        for name, data in (found | monitor.take_dirty()).items():
            parts[name] = data
            if data is None:
                del parts[name]
    assert names(monitor) == {"new"}
    assert sorted(name for name in parts if name[0] == "w" or name[:3] == "i/t") == ["i/t/0", "w/i/0/0", "w/m/0/0", "w/v/0/1/0"]
    monitor = Monitor.restore(config, "driftloop.", 0, parts)
    effects = play(monitor, [label(0, 0, "old", 1.3), label(1, 2, "new", 1.3)], 1)
    assert effects.counters["joined"] == 1
    assert monitor.watch.roster.models[0].versions[1].labelled == 1


@pytest.mark.parametrize("most", [1, 3, 1_000])
def test_new_models_are_saved_ahead_of_the_commit_a_few_at_a_time(most: int) -> None:
    monitor, parts = Monitor(small(), "driftloop.", 0), {}
    play(monitor, [prediction(at, f"m{at}", at / 1000) for at in range(10)], 4)
    with patch.object(monitor_module, "NEW_MODELS", most):
        while found := monitor.take_new():
            assert sum(name.startswith("w/m/") for name in found) == min(most, 10 - sum(name.startswith("w/m/") for name in parts))
            parts |= found
    left = monitor.take_dirty()
    assert not any(name.startswith(MODELS) for name in left)
    assert parts == {name: data for name, data in unpack_parts(monitor.snapshot()).items() if name.startswith(MODELS)}


def test_a_refused_record_leaves_nothing_behind_for_the_garbage_collector() -> None:
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    play(monitor, [prediction(at, f"m{at}", at / 1000) for at in range(10)], 5)
    gc.collect()
    gc.disable()
    try:
        play(monitor, [prediction(at, f"m{at}", at / 1000) for at in range(10, 40)], 5)
        assert gc.collect() < 30
    finally:
        gc.enable()


def test_a_feature_with_a_name_beyond_the_bound_is_refused() -> None:
    monitor = Monitor(MonitorConfig(max_feature_name_bytes=10), "driftloop.", 0)
    effects = play(monitor, [prediction(0, "m", 0, {"a" * 11: 1.0}), prediction(1, "m", 0, {"ä" * 5: 1.0})], 1)
    assert [(letter.offset, letter.disposition) for letter in effects.dead_letters] == [(0, "too_large")]


def test_the_state_of_a_flooded_partition_is_as_large_as_its_bounds() -> None:
    monitor = Monitor(small(**FEW), "driftloop.", 0)
    log = [prediction(at, f"m{at}", at / 50) for at in range(1_000)]
    play(monitor, log, 100)
    roster = monitor.watch.roster
    assert len(monitor.table) == len(roster.models) == 4
    assert len(roster.by_slot) <= 4
    assert len(roster.input_banks) == 1
    assert len(json.dumps(sorted(monitor.watch._state._pieces))) < 400


def test_outputs_and_labels_that_are_learned_are_bounded() -> None:
    monitor, log = Monitor(small(max_total_outputs=10), "driftloop.", 0), []
    for at in range(60):
        model = f"m{at % 2}"
        value = {"model": model, "version": 1, "prediction_id": f"p{at}", "output": f"text {at}", "features": {"a": 0.5}}
        log.append(record("predictions", at, START_MS + at, model.encode(), value))
        said = {"model": model, "prediction_id": f"p{at}", "label": f"label {at}"}
        log.append(record("labels", at, START_MS + at, model.encode(), said))
    effects = play(monitor, merged(log), 7)
    refused = [letter for letter in effects.dead_letters if letter.disposition == "over_limit"]
    assert [letter.offset for letter in refused] == list(range(10, 60))
    assert effects.notices[0].startswith("monitor.max_total_outputs is reached")
    assert sum(len(model.stored) for model in monitor.table.models) == 10
    assert sum(len(model.classes) for model in monitor.table.models) <= 20


@pytest.mark.parametrize("form", ["JSON", "msgpack"])
def test_room_runs_out_at_the_same_record_however_small_its_features_are_written(form: str) -> None:
    encode = msgspec.json.encode if form == "JSON" else msgspec.msgpack.encode
    log = []
    for at in range(60):
        value = {"model": f"m{at}", "version": 1, "prediction_id": "p", "output": 1, "features": [1] * 200}
        log.append(record("predictions", at, START_MS + at * 100, b"m%d" % at, encode(value)))
    found = []
    for size in (1, 7, 60):
        monitor = Monitor(small(max_total_features=9_000), "driftloop.", 0)
        effects = play(monitor, log, size)
        found.append((names(monitor), [letter.offset for letter in effects.dead_letters], effects.counters["models_evicted"]))
    assert found[0] == found[1] == found[2]
    assert found[0][2] == 1
