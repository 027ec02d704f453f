"""A fault between intake and watch costs the record it comes from, or the index of one class: the other models go on as without it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from driftloop.detectors import disputes, join, outputs
from driftloop.detectors.disputes import Disputes
from driftloop.detectors.effects import Effects
from driftloop.detectors.model import Model
from driftloop.detectors.model_table import ModelTable
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import play, record, small, told, traffic

BAD = 77
PLACES = (60, 61, 150, 340)


def prediction(ident: str, output: int, version: int = 1) -> dict[str, Any]:
    features = dict.fromkeys("abcd", 0.5)
    return {"model": "model-1", "version": version, "prediction_id": ident, "output": output, "features": features}


def log_with(kind: str) -> list[Record]:
    """Return traffic with records that are to fail: those from offset 10,000 on. Those from 20,000 on are good and go with them."""
    log = traffic(260, drift_at=130)
    found = list(log)

    def add(topic: str, offset: int, place: int, value: dict[str, Any]) -> None:
        found.append(record(topic, offset, log[place].timestamp_ms, b"model-1", json.dumps(value).encode()))

    for number, place in enumerate(PLACES):
        ident, label = f"x-{number}", {"model": "model-1", "prediction_id": f"x-{number}", "label": BAD}
        good, bad = 20_000 + number, 10_000 + number
        if kind == "output":
            add("predictions", bad, place, prediction(ident, BAD))
        elif kind == "prediction twice":
            add("predictions", good, place, prediction(ident, 1))
            add("predictions", bad, place + 20, prediction(ident, 1))
        elif kind == "label twice":
            add("predictions", good, place, prediction(ident, 1))
            add("labels", good, place + 10, label | {"label": 1})
            add("labels", bad, place + 20, label)
        else:
            add("predictions", good, place + (40 if kind == "early label" else 0), prediction(ident, 1))
            add("labels", bad, place + 20, label)
    places = {id(one): at for at, one in enumerate(log)}
    return sorted(found, key=lambda one: (one.timestamp_ms, places.get(id(one), -1)))


def values_fail(real: Callable[..., Any], at: int = 0) -> Callable[..., Any]:
    """Return a function that fails where the values it is given as argument `at` have the bad one."""

    def call(*given: Any) -> Any:
        values = given[at].outputs if hasattr(given[at], "outputs") else given[at]
        bad = np.any(np.asarray(values) == BAD) if np.ndim(values) else values == BAD
        if bad:
            raise RuntimeError("unforeseen")
        return real(*given)

    return call


def second_fails(real: Callable[[Disputes, int], None]) -> Callable[[Disputes, int], None]:
    def call(self: Disputes, at: int) -> None:
        if self.predictions.offset[at] >= 10_000 and self.predictions.offset[at] < 20_000:
            raise RuntimeError("unforeseen")
        real(self, at)

    return call


CASES: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "lookup of outputs": ("output", outputs, "_known", values_fail),
    "new output": ("output", outputs, "_new_output", lambda real: values_fail(real, 1)),
    "store of an output": ("output", Model, "store", lambda real: values_fail(real, 1)),
    "kind of labels": (
        "label",
        join,
        "strange_pairs",
        lambda real: lambda rows, table: (values_fail(len)(rows.values), real(rows, table))[1],
    ),
    "marks": ("label", join, "marks_of", values_fail),
    "labels as indices": ("label", join, "label_indices", values_fail),
    "a second label": ("label twice", disputes, "mark_of", values_fail),
    "a second prediction": ("prediction twice", Disputes, "_prediction", second_fails),
    "an early label": ("early label", disputes, "label_problem", values_fail),
}


def events_of(effects: Effects, model: str = "") -> list[dict[str, Any]]:
    events = [json.loads(one) for one in told(effects)[0]]
    for one in events:
        # An episode's name holds the place of its record in the log, which the faults move.
        one.pop("episode_id", None)
        one.get("counts", {}).pop("early_labels", None)
    return [one for one in events if model in ("", one["model"])]


@pytest.mark.parametrize("size", [1, 60, 10_000])
@pytest.mark.parametrize("case", CASES)
def test_the_record_that_fails_is_a_dead_letter_and_the_others_go_on(case: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, owner, name, failing = CASES[case]
    log = log_with(kind)
    clean = play(Monitor(small(), "driftloop.", 0), [one for one in log if not 10_000 <= one.offset < 20_000], size)
    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    monitor = Monitor(small(), "driftloop.", 0)
    effects = play(monitor, log, size)
    assert [(one.offset, one.disposition, one.message) for one in effects.dead_letters] == [
        (10_000 + number, "processing_error", "RuntimeError: unforeseen") for number in range(len(PLACES))
    ]
    assert {one.topic for one in effects.dead_letters} == {f"driftloop.{'labels' if 'label' in kind else 'predictions'}"}
    assert len(events_of(clean)) > 4
    assert events_of(effects) == events_of(clean)
    assert effects.counters["joined"] == clean.counters["joined"]
    monkeypatch.undo()
    restored = Monitor.from_snapshot(small(), "driftloop.", 0, monitor.snapshot())
    assert restored.snapshot() == monitor.snapshot()


@pytest.mark.parametrize("size", [1, 60, 10_000])
def test_a_class_that_cannot_be_placed_is_one_of_the_others_and_told(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_with("label")
    clean = play(Monitor(small(), "driftloop.", 0), log, size)
    monkeypatch.setattr(ModelTable, "place", values_fail(ModelTable.place, 2))
    effects = play(Monitor(small(), "driftloop.", 0), log, size)
    assert effects.dead_letters == []
    assert effects.counters["joined"] == clean.counters["joined"]
    assert events_of(effects, "model-0") == events_of(clean, "model-0")
    assert effects.counters["watch_faults"] == len(PLACES)
    assert set(effects.notices) == {"a fault in the watch of model-1 was contained, place of a class: RuntimeError: unforeseen"}


def test_what_ends_a_process_on_purpose_is_no_fault_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for owner, name in ((outputs, "_known"), (join, "marks_of"), (join, "label_indices")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop)
            with pytest.raises(KeyboardInterrupt):
                play(Monitor(small(), "driftloop.", 0), traffic(100), 10)
