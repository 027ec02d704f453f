"""The monitor: one log has one outcome, however it is cut into batches."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.detectors import monitor as monitor_module
from driftloop.detectors.effects import Effects
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import unpack_parts
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened, MetricsComputed
from driftloop.schemas.records import Batch, Record
from driftloop.tests.monitor_logs import START_MS, batch_of, merged, play, record, small, told, traffic

TIGHT = small(join_window_s=0.5, early_label_s=0.2, max_pending=1_000, max_early_labels=100)
CLASSES: list[list[Any]] = [[1, 2, 3], ["y", "x"], [False, True], []]
REGISTERED = {"type": "model_registered", "version": 1, "digest": "d", "uri": "u", "size_bytes": 1}
CRAMPED = small(
    max_models=2,
    max_total_features=5,
    max_total_classes=4,
    max_total_outputs=5,
    max_versions=2,
    max_new_versions_per_minute=20,
    model_idle_s=0.5,
    idle_rows=4,
    join_window_s=2.0,
    early_label_s=0.5,
)


def new(config: MonitorConfig | None = None) -> Monitor:
    return Monitor(small() if config is None else config, "driftloop.", 0)


class Ahead(Monitor):
    """A monitor that saves a new model after each batch, ahead of the commit."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.ahead: dict[str, bytes | None] = {}

    def process(self, batch: Batch) -> Effects:
        """Take in a batch and save a new model."""
        effects = super().process(batch)
        with patch.object(monitor_module, "NEW_MODELS", 1):
            self.ahead |= self.take_new()
        return effects

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return what was saved, and what is left to be."""
        return self.ahead | super().take_dirty()


def prediction(at: int, ident: str, model: str = "m", **more: Any) -> Record:
    value = {"model": model, "version": 1, "prediction_id": ident, "output": 1, "features": {"a": 0.5}} | more
    return record("predictions", at, START_MS + at, model.encode(), value)


def label(at: int, ident: str, value: Any, model: str = "m") -> Record:
    return record("labels", at, START_MS + at, model.encode(), {"model": model, "prediction_id": ident, "label": value})


@st.composite
def wild_logs(draw: st.DrawFn) -> list[Record]:
    """Logs with few ids, so that they meet again: duplicates, early and late labels, corrections, new classes, task switches.

    More versions and models than `CRAMPED` has room for.
    """
    kinds = st.sampled_from(["prediction"] * 4 + ["label"] * 5 + ["poison", "model"])
    steps = draw(
        st.lists(st.tuples(kinds, st.integers(0, 7), st.integers(0, 3), st.integers(0, 11), st.integers(0, 250)), max_size=120)
    )
    found, time_ms, offsets = [], START_MS, dict.fromkeys(("models", "predictions", "labels"), 0)
    for kind, ident, model, choice, wait in steps:
        time_ms += wait
        name = f"model-{model}"
        outputs: list[Any] = [
            [1, 2, 3, 1.0, 2.5, 4][choice % 6],
            ["x", "y", "z", "", "w", 1][choice % 6],
            [True, False, 1][choice % 3],
            [0.5, 1, 2][choice % 3],
        ][model]
        topic = "labels" if kind == "label" else "models" if kind == "model" else "predictions"
        value: Any = {"model": name, "prediction_id": f"id-{ident}"}
        if kind == "prediction":
            scores = {"scores": [0.25, 0.75]} if choice == 7 else {}
            features: Any = [0.5] if choice == 8 else {"a": choice / 2, "b": None if choice == 9 else 1.5}
            value |= {"version": 1 + choice % 4, "output": outputs, "features": features, **scores}
        elif kind == "label":
            value |= {"label": None if choice == 11 else outputs}
        elif kind == "model":
            classes: list[Any] = CLASSES[model] if choice % 3 else []
            signature = {"task": "classification" if classes else "regression", "features": ["a", "b"], "classes": classes}
            value = REGISTERED | {"model": name, "signature": signature}
        else:
            value = b"{"
        found.append(record(topic, offsets[topic], time_ms - choice * 20 if choice > 9 else time_ms, name.encode(), value))
        offsets[topic] += 1
    return merged(found)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(wild_logs(), st.sampled_from([TIGHT, CRAMPED]))
def test_one_log_has_one_outcome(log: list[Record], config: MonitorConfig) -> None:
    once = new(config)
    expected = told(play(once, log, max(1, len(log))))
    for size in (1, 7):
        other = new(config)
        assert told(play(other, log, size)) == expected
        assert other.pending == once.pending
        assert other.stream_time_ms == once.stream_time_ms


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(wild_logs(), st.integers(1, 20), st.sampled_from([TIGHT, CRAMPED]))
def test_the_spans_of_a_batch_say_what_the_whole_batch_says(log: list[Record], size: int, config: MonitorConfig) -> None:
    whole, spans = new(config), new(config)
    expected = told(play(whole, log, max(1, len(log))))
    with patch.multiple(monitor_module, SPAN_RECORDS=size, SPAN_RECORDS_PER_MODEL=1):
        assert told(play(spans, log, max(1, len(log)))) == expected
    assert spans.pending == whole.pending
    assert spans.now_ms == whole.now_ms


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(wild_logs(), st.randoms(use_true_random=False), st.sampled_from([TIGHT, CRAMPED]), st.sampled_from([Monitor, Ahead]))
def test_a_restored_monitor_goes_on_as_if_never_stopped(
    log: list[Record], rng: Any, config: MonitorConfig, kind: type[Monitor]
) -> None:
    expected = told(play(new(config), log, 11))
    monitor, parts, total = kind(config, "driftloop.", 0), {}, None
    cuts = sorted(rng.sample(range(len(log) + 1), min(4, len(log))))
    for first, stop in zip([0, *cuts], [*cuts, len(log)], strict=True):
        effects = play(monitor, log[first:stop], 5)
        for name, data in monitor.take_dirty().items():
            parts.pop(name, None)
            if data is not None:
                parts[name] = data
        monitor = kind.restore(config, "driftloop.", 0, parts)
        whole = unpack_parts(monitor.snapshot())
        assert {name: parts[name] for name in parts if name.startswith("i/t/")} == {
            name: whole[name] for name in whole if name.startswith("i/t/")
        }
        assert {name for name in parts if name[:2] == "w/"} - {"w/labels"} == {name for name in whole if name[:2] == "w/"} - {
            "w/labels"
        }
        if total is None:
            total = effects
        else:
            total.events += effects.events
            total.dead_letters += effects.dead_letters
            total.notices += effects.notices
            total.counters = {
                name: total.counters.get(name, 0) + effects.counters.get(name, 0) for name in total.counters | effects.counters
            }
    assert total is not None
    assert told(total) == expected


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_drift_is_found_at_the_same_place_in_any_batches(size: int) -> None:
    log = traffic(1_500, drift_at=800)
    expected = play(new(), log, len(log))
    assert any(isinstance(event, DriftOpened) and event.signal == "error" for event in expected.events)
    assert any(isinstance(event, MetricsComputed) for event in expected.events)
    assert told(play(new(), log, size)) == told(expected)


def test_duplicates_corrections_and_retractions_are_counted_once() -> None:
    monitor = new()
    log = [
        *(prediction(0, "a"), prediction(1, "a"), label(2, "a", 1), label(3, "a", 1)),
        *(label(4, "a", 0), label(5, "a", None), label(6, "b", 1), label(7, "b", None), prediction(8, "b")),
    ]
    counters = monitor.process(batch_of(log)).counters
    assert {name: counters.get(name) for name in ("admitted", "joined", "duplicates", "duplicate_labels", "corrections")} == {
        "admitted": 2,
        "joined": 1,
        "duplicates": 1,
        "duplicate_labels": 1,
        "corrections": 1,
    }
    assert counters["retractions"] == 2
    assert counters["early_labels"] == 1
    assert monitor.pending == 1


def test_an_early_label_joins_when_its_prediction_comes() -> None:
    effects = new().process(batch_of([label(0, "a", 1), prediction(1, "a")]))
    assert effects.counters["joined"] == 1
    assert not effects.dead_letters


def test_a_label_that_joins_nothing_is_dead_lettered_with_its_bytes() -> None:
    monitor = new(small(early_label_s=1))
    early = label(0, "a", 1)
    assert not monitor.process(batch_of([early])).dead_letters
    letters = monitor.process(batch_of([prediction(1001, "b")])).dead_letters
    assert [(one.disposition, one.value, one.key, one.headers, one.offset) for one in letters] == [
        ("unjoinable", early.value, early.key, early.headers, 0)
    ]


def test_a_label_after_the_window_is_unjoinable() -> None:
    monitor = new(small(join_window_s=1, early_label_s=1))
    effects = play(monitor, [prediction(0, "a"), label(1001, "a", 1), prediction(3000, "b")], 1)
    assert [one.disposition for one in effects.dead_letters] == ["unjoinable"]
    assert effects.counters["joined"] == 0


def test_the_oldest_predictions_give_way() -> None:
    log = merged([*(prediction(at, f"id-{at}") for at in range(1_001)), label(2000, "id-0", 1), label(2001, "id-1", 1)])
    monitor = new(small(max_pending=1_000))
    assert play(monitor, log, len(log)).counters["joined"] == 1
    assert monitor.pending == 999


@pytest.mark.parametrize(("output", "wrong"), [(1, "1"), ("1", 1), (True, 1), (1, True), (1, 1.5), (2.5, "2.5")])
def test_a_label_of_another_kind_is_invalid_and_the_prediction_waits_on(output: Any, wrong: Any) -> None:
    monitor = new()
    effects = monitor.process(batch_of([prediction(0, "a", output=output), label(1, "a", wrong), label(2, "a", output)]))
    assert [(one.disposition, one.offset) for one in effects.dead_letters] == [("invalid", 1)]
    assert effects.counters["joined"] == 1


def test_whole_numbers_are_classes_until_a_fraction_appears() -> None:
    monitor = new()
    monitor.process(batch_of([prediction(0, "a", output=3), label(1, "a", 3)]))
    assert monitor.table.task(0) == "classification"
    monitor.process(batch_of([prediction(2, "b", output=3.5), label(3, "b", 4)]))
    assert monitor.table.task(0) == "regression"
    assert monitor.table.generation(0) == 1


def test_classes_are_numbered_by_first_appearance_or_by_scores() -> None:
    monitor = new()
    log = [
        *(prediction(0, "a", output="cat", model="s", scores=[0.1, 0.9]), label(1, "a", "dog", model="s")),
        *(prediction(2, "b", output=1, model="t"), label(3, "b", 0, model="t")),
        prediction(4, "c", output=2, model="u", scores=[0.1, 0.2, 0.7]),
    ]
    monitor.process(batch_of(log))
    assert [monitor.table.classes(slot) for slot in range(3)] == [("dog", "cat"), (1, 0), (0, 1, 2)]


def test_a_registration_gives_names_and_classes() -> None:
    signature = {"task": "classification", "features": ["b", "a"], "classes": ["no", "yes"]}
    event = {
        "type": "model_registered",
        "model": "m",
        "version": 1,
        "digest": "d",
        "uri": "u",
        "size_bytes": 1,
        "signature": signature,
    }
    monitor = new()
    log = [
        record("models", 0, START_MS, b"m", json.dumps(event).encode()),
        *(prediction(1, "a", output="yes"), prediction(2, "b", output="maybe"), label(3, "a", "no"), label(4, "a", "perhaps")),
    ]
    effects = monitor.process(batch_of(log))
    assert [(one.disposition, one.offset) for one in effects.dead_letters] == [("invalid", 2)]
    assert monitor.table.names(0) == ("b", "a")
    assert monitor.table.classes(0) == ("no", "yes")
    assert effects.counters["corrections"] == 1
