"""Outputs and labels by value: what is no class is wrong, and however a model is registered, only its own numbers change."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.detectors.columns import JoinedRows
from driftloop.detectors.metric_sums import MOST_CLASSES
from driftloop.detectors.model import MAX_FOREIGN_CLASSES, MAX_TAKEN
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.scorekeeper import Scorekeeper
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened, MetricsComputed
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, merged, play, record, small, told


def registered(at: int, classes: list[Any], model: str = "m", offset: int = 0, version: int | None = None) -> Record:
    signature = {"task": "classification" if classes else "regression", "features": ["a"], "classes": classes}
    # Each is of a version of its own.
    number = offset + 1 if version is None else version
    value = {"type": "model_registered", "model": model, "version": number, "digest": "d", "uri": "u", "size_bytes": 1}
    return record("models", offset, START_MS + at, model.encode(), value | {"signature": signature})


def prediction(at: int, output: Any, model: str = "m", **more: Any) -> Record:
    value = {"model": model, "version": 1, "prediction_id": f"{model}{at}", "output": output, "features": {"a": 0.5}}
    return record("predictions", at, START_MS + at, model.encode(), value | more)


def label(at: int, value: Any, model: str = "m", later: int = 0) -> Record:
    said = {"model": model, "prediction_id": f"{model}{at}", "label": value}
    return record("labels", at, START_MS + at + later, model.encode(), json.dumps(said).encode())


def metrics_of(monitor: Monitor, log: list[Record], size: int = 10_000) -> list[MetricsComputed]:
    return [event for event in play(monitor, log, size).events if isinstance(event, MetricsComputed)]


@pytest.mark.parametrize(
    ("classes", "foreign"),
    [([0, 1, 2], 3), ([0, 1, 2], -1), ([0, 1, 2], 2**60), (["a", "b", "c"], "d"), ([0, 1], 2), ([False, True], None)],
)
def test_a_label_that_is_no_class_is_a_wrong_answer_with_and_without_a_signature(classes: list[Any], foreign: Any) -> None:
    rng = np.random.default_rng(7)
    log = []
    for at in range(4_000):
        right = int(rng.integers(len(classes)))
        said = right if rng.random() < 0.95 else (right + 1) % len(classes)
        strange = foreign is not None and at >= 2_000 and rng.random() < 0.3
        log += [prediction(at, classes[said]), label(at, foreign if strange else classes[right])]
    seen = []
    for first in ([], [registered(0, classes)]):
        if foreign == 2**60 and not first:
            # Beyond what a float holds exactly no number is taken for a class that nobody named.
            continue
        effects = play(Monitor(MonitorConfig(), "d.", 0), merged([*first, *log]), 1_000)
        assert not effects.dead_letters
        last = [event for event in effects.events if isinstance(event, MetricsComputed)][-1]
        opened = [(one.signal, one.direction, one.change_point.offset) for one in effects.events if isinstance(one, DriftOpened)]
        assert last.total_rows == 4_000
        if foreign is not None:
            assert last.total["accuracy"] == pytest.approx(0.95 * 0.85, abs=0.02)
            assert [one[:2] for one in opened] == [("error", "worse")]
        seen.append((last.window["accuracy"], last.total["accuracy"], opened))
    assert seen == seen[:1] * len(seen)


def test_precision_and_recall_stay_those_of_the_positive_class_of_a_signature() -> None:
    log = [registered(0, [0, 1])]
    for at in range(50):
        log += [prediction(at, at % 2), label(at, 2 if at in (1, 2) else at % 2)]
    (found,) = metrics_of(Monitor(small(), "d.", 0), merged(log))
    assert found.total["accuracy"] == pytest.approx(48 / 50)
    assert found.total["precision"] == pytest.approx(24 / 25)
    assert found.total["recall"] == 1.0


def test_labels_without_end_share_one_class_and_stay_wrong() -> None:
    def log(first: int) -> list[Record]:
        return merged([one for at in range(first, first + 500) for one in (prediction(at, f"c{at % 3}"), label(at, f"no-{at}"))])

    monitor = Monitor(small(metrics_every_rows=500), "d.", 0)
    play(monitor, [registered(0, ["c0", "c1", "c2"])], 1)
    for first in (0, 500):
        (found,) = metrics_of(monitor, log(first))
        assert found.window["accuracy"] == 0.0
        assert len(monitor.table.models[0].classes) == 3 + MAX_FOREIGN_CLASSES
        again = Monitor.from_snapshot(monitor.config, "d.", 0, monitor.snapshot())
        assert again.table.models[0].classes == monitor.table.models[0].classes
        monitor = again


@pytest.mark.parametrize("output", [7, 2, -1, -7, 2_000_000, 10**9, 10**15, 2**53])
@pytest.mark.parametrize("size", [1, 10_000])
def test_an_output_that_the_signature_has_not_is_judged_by_value(output: int, size: int) -> None:
    log = [prediction(0, output), prediction(1, output), prediction(2, 1), registered(10, [0, 1])]
    log += [label(0, 1, later=20), label(1, output, later=20), label(2, 1, later=20)]
    log += [one for at in range(100, 147) for one in (prediction(at, 1), label(at, 1))]
    (found,) = metrics_of(Monitor(small(), "d.", 0), merged(log), size)
    assert (found.total_rows, found.total["accuracy"]) == (50, pytest.approx(49 / 50))


@pytest.mark.parametrize("output", [0.37, -7.5, 1e38, -1e38, 3e-300])
def test_a_row_of_another_task_is_neither_right_nor_wrong(output: float) -> None:
    log = [prediction(0, output), registered(10, [0, 1]), label(0, 1, later=20)]
    log += [one for at in range(100, 150) for one in (prediction(at, 1), label(at, 1))]
    monitor = Monitor(small(), "d.", 0)
    (found,) = metrics_of(monitor, merged(log))
    assert (found.total_rows, found.total["accuracy"]) == (50, 1.0)
    assert monitor.table.counts(0)["early_labels"] == 1


CLASSES: list[list[Any]] = [[0, 1], [1, 0], [0, 1, 2], [5, 7], [], ["a", "b"], [False, True]]
VALUES: list[Any] = [0, 1, 2, 5, 7, -1, -7.5, 0.37, 1e9, 1e38, "a", "b", "c", True, False]


@st.composite
def rival_logs(draw: st.DrawFn) -> list[Record]:
    """Logs of three models whose kinds and classes turn back and forth between predictions and their labels."""
    step = st.tuples(
        st.integers(0, 2), st.sampled_from(["prediction"] * 4 + ["label"] * 4 + ["model"]), st.integers(0, 40), st.integers(0, 14)
    )
    scores: list[Any] = [None, [0.4], [0.3, 0.7], [-3.0, 4.0], [0.2, 0.3, 0.5]]
    found, offsets = [], dict.fromkeys(("models", "predictions", "labels"), 0)
    for time_ms, (model, kind, ident, choice) in enumerate(draw(st.lists(step, min_size=30, max_size=400))):
        name, topic = f"model-{model}", "models" if kind == "model" else f"{kind}s"
        value: dict[str, Any]
        if kind == "model":
            signature: dict[str, Any] = {"features": ["a"], "classes": CLASSES[choice % len(CLASSES)]}
            signature["task"] = "classification" if signature["classes"] else "regression"
            value = {"type": "model_registered", "version": offsets[topic] + 1, "digest": "d", "uri": "u", "size_bytes": 1}
            value["signature"] = signature
        elif kind == "prediction":
            value = {"version": 1 + ident % 2, "output": VALUES[choice], "features": {"a": 0.5}, "scores": scores[ident % 5]}
        else:
            value = {"label": VALUES[choice]}
        if kind != "model":
            value["prediction_id"] = f"id-{ident}"
        found.append(record(topic, offsets[topic], START_MS + time_ms, name.encode(), value | {"model": name}))
        offsets[topic] += 1
    return merged(found)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rival_logs(), st.sampled_from([1, 7, 1_000]))
def test_the_numbers_of_a_model_are_those_it_has_alone(log: list[Record], size: int) -> None:
    config = small(metrics_every_rows=10)
    together = told(play(Monitor(config, "driftloop.", 0), log, size))[0]
    for model in (b"model-0", b"model-1", b"model-2"):
        alone = told(play(Monitor(config, "driftloop.", 0), [one for one in log if one.key == model], 1))[0]
        mine = b'"model":"' + model + b'"'
        assert [event for event in together if mine in event] == alone


@pytest.mark.parametrize("wrong", [-1.0, -7.0, 0.5, float("nan"), float(MOST_CLASSES), 1e15])
def test_an_index_that_is_none_is_an_error_and_counts_for_nobody(wrong: float) -> None:
    keeper = Scorekeeper(1_000)
    n, zero = np.arange(4), np.zeros(4)
    rows = JoinedRows(n, n * 0, n * 0, n, n, zero, zero.copy(), zero.copy(), zero, np.zeros((4, 0)))
    assert not list(keeper.add(np.array([0, 1, 0, 1]), rows, lambda slot: False))
    before = [keeper.windows.window(slot).classes.tolist() for slot in (0, 1)]
    for column in (rows.output, rows.label):
        column[1] = wrong
        with pytest.raises(IndexError, match="class indices must be"):
            list(keeper.add(np.array([0, 1, 0, 1]), rows, lambda slot: False))
        column[1] = 0.0
    assert [keeper.windows.window(slot).classes.tolist() for slot in (0, 1)] == before


@pytest.mark.parametrize("size", [1, 100])
def test_a_label_that_is_no_class_does_not_make_it_an_output_of_the_signature(size: int) -> None:
    log = [registered(0, [1, 2, 3]), prediction(0, 1), label(0, 2.5, later=1), prediction(5, 2.5)]
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    letters = play(monitor, merged(log), size).dead_letters
    assert [letter.message for letter in letters] == ["output must be a class of the signature, got 2.5"]


def classes_of(monitor: Monitor) -> list[Any]:
    (model,) = monitor.table.models
    return model.classes[: model.reserved]


@pytest.mark.parametrize("restored", [False, True])
def test_a_registration_that_is_read_again_does_not_set_the_classes_back(restored: bool) -> None:
    log = [registered(0, ["a", "b"], offset=0), registered(1, ["a", "b", "c"], offset=1), registered(2, ["x", "y"], offset=2)]
    again = [registered(3 + at, ["a", "b"], offset=3 + at, version=version) for at, version in enumerate((1, 3, 2))]
    monitor = Monitor(small(), "d.", 0)
    play(monitor, log, 1)
    if restored:
        monitor = Monitor.from_snapshot(small(), "d.", 0, monitor.snapshot())
    effects = play(monitor, again, 10)
    assert classes_of(monitor) == ["x", "y"]
    assert effects.counters["registrations_repeated"] == 3
    assert effects.dead_letters == []
    play(monitor, [registered(9, ["a", "z"], offset=9, version=4)], 1)
    assert classes_of(monitor) == ["a", "z"], "a version that is new counts"


def test_a_version_beyond_all_others_does_not_keep_the_next_ones_out() -> None:
    monitor = Monitor(small(), "d.", 0)
    play(monitor, [registered(0, ["a", "b"], version=2**31 - 1), registered(1, ["c", "d"], offset=1, version=5)], 1)
    assert classes_of(monitor) == ["c", "d"]


def test_only_so_many_registrations_are_remembered_and_none_older_counts() -> None:
    monitor = Monitor(small(), "d.", 0)
    play(monitor, [registered(at, ["a", f"b{at}"], offset=at) for at in range(MAX_TAKEN + 10)], 10)
    newest = classes_of(monitor)
    assert len(monitor.table.models[0].taken) == MAX_TAKEN
    play(monitor, [registered(500 + at, ["x", "y"], offset=500 + at, version=at + 1) for at in range(MAX_TAKEN + 10)], 10)
    assert classes_of(monitor) == newest
