"""Disputes: a prediction is itself by model, version and id; a label joins those of every version, in whatever order they come."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.detectors.monitor import Monitor
from driftloop.detectors.pending import Pending
from driftloop.schemas.events import MetricsComputed
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, batch_of, play, record, small, told


def log_of(steps: list[tuple[Any, ...]]) -> list[Record]:
    """Return the records of steps: ("v1", id) or ("label", id, value), a millisecond apart."""
    found, offsets = [], Counter[str]()
    for at, (what, ident, *value) in enumerate(steps):
        topic = "labels" if what == "label" else "predictions"
        said: dict[str, Any] = {"model": "m", "prediction_id": ident}
        if what == "label":
            said["label"] = value[0]
        else:
            said |= {"version": int(what[1:]), "output": value[0] if value else 1, "features": {"a": 0.5}}
        found.append(record(topic, offsets[topic], START_MS + at, b"m", json.dumps(said).encode()))
        offsets[topic] += 1
    return found


def counts_of(steps: list[tuple[Any, ...]], size: int) -> dict[str, int]:
    """Return what a new monitor counts, the zeros left out; it is saved and restored after every batch."""
    monitor, log, total = Monitor(small(), "driftloop.", 0), log_of(steps), Counter[str]()
    for first in range(0, len(log), size):
        total.update(monitor.process(batch_of(log[first : first + size])).counters)
        monitor = Monitor.from_snapshot(monitor.config, "driftloop.", 0, monitor.snapshot())
    return {name: count for name, count in total.items() if count and name not in ("predictions", "labels")}


V1, V2, V3, LABEL = ("v1", "a"), ("v2", "a"), ("v3", "a"), ("label", "a", 1)


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        ([V1, V2, LABEL], {"admitted": 2, "joined": 2}),
        ([V1, V2, V3, LABEL], {"admitted": 3, "joined": 3}),
        ([LABEL, V1, V2], {"admitted": 2, "joined": 2, "early_labels": 1}),
        ([LABEL, V1, V2, V3, V1], {"admitted": 3, "joined": 3, "early_labels": 0, "duplicates": 1}),
        ([V1, V2, V1, V2, LABEL], {"admitted": 2, "joined": 2, "duplicates": 2}),
        ([V1, V2, LABEL, LABEL], {"admitted": 2, "joined": 2, "duplicate_labels": 1}),
        ([V1, V2, LABEL, ("label", "a", 0)], {"admitted": 2, "joined": 2, "corrections": 1}),
        ([V1, V2, LABEL, ("label", "a", None)], {"admitted": 2, "joined": 2, "retractions": 1}),
        ([V1, V2, ("label", "a", None), LABEL], {"admitted": 2, "joined": 2, "retractions": 1}),
        ([V1, LABEL, V2], {"admitted": 2, "joined": 1, "answers_after_label": 1}),
        ([V1, LABEL, V2, LABEL], {"admitted": 2, "joined": 2, "answers_after_label": 1, "duplicate_labels": 1}),
        ([V1, V2, ("v1", "b"), ("label", "b", 1), LABEL], {"admitted": 3, "joined": 3}),
        ([V1, V2, ("label", "a", "text")], {"admitted": 2, "dead_lettered": 1, "dead_lettered_invalid": 1}),
    ],
)
def test_the_story_of_one_request(steps: list[tuple[Any, ...]], counts: dict[str, int], size: int) -> None:
    if counts.get("early_labels") == 0:
        # The model is not known when its label comes first.
        counts = {name: count for name, count in counts.items() if name != "early_labels"}
    found = counts_of(steps, size)
    found.pop("early_labels", None)
    assert found == {name: count for name, count in counts.items() if name != "early_labels"}


class Oracle:
    """The rules alone: no window, no buffer, one record after the other."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.early: dict[str, Any] = {}
        self.answered: dict[str, Any] = {}
        self.count = Counter[str]()

    def predict(self, version: str, ident: str) -> None:
        family = self.rows.setdefault(ident, {})
        if version in family:
            self.count["duplicates"] += 1
            return
        self.count["admitted"] += 1
        if ident in self.early:
            self.answered[ident] = self.early.pop(ident)
        label = self.answered.get(ident)
        if label is None and family:
            self.count["answers_after_label"] += list(family.values())[-1] is not None
        family[version] = label
        self.count["joined"] += label is not None

    def label(self, ident: str, value: Any) -> None:
        family = self.rows.get(ident, {})
        if not family and value is None:
            self.early.pop(ident, None)
        elif not family:
            self.early.setdefault(ident, value)
        elif value is not None:
            for version, label in family.items():
                if label is None:
                    family[version] = value
                    self.count["joined"] += 1


def expected(steps: list[tuple[Any, ...]]) -> dict[str, int]:
    """Return the counts by the rules alone."""
    oracle = Oracle()
    for what, ident, *value in steps:
        if what == "label":
            oracle.label(ident, value[0])
        else:
            oracle.predict(what, ident)
    return {name: number for name, number in oracle.count.items() if number}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(["v1", "v2", "v3", "label", "label"]), st.sampled_from("abcd"), st.sampled_from([0, 1, 1, None])),
        max_size=60,
    ),
    st.sampled_from([1, 5, 100]),
)
def test_any_story_is_counted_by_the_rules(steps: list[tuple[str, str, Any]], size: int) -> None:
    made: list[tuple[Any, ...]] = [step if step[0] == "label" else (step[0], step[1]) for step in steps]
    # The model is known from the first record on, so that all is counted.
    made = [("v1", "first"), *made]
    found = counts_of(made, size)
    wanted = expected(made)
    names = {"admitted", "joined", "duplicates", "answers_after_label"}
    assert {name: count for name, count in found.items() if name in names} == {
        name: count for name, count in wanted.items() if name in names
    }


def shadowed(rows: int, versions: tuple[int, ...]) -> list[Record]:
    """Return requests that each of the versions answers, the second worse than the first, with one label each."""
    steps: list[tuple[Any, ...]] = []
    for at in range(rows):
        for version in versions:
            wrong = at % (10 if version == 1 else 4) == 0 or (version == 2 and at > rows // 2 and at % 2 == 0)
            steps.append((f"v{version}", f"id-{at}", 1 - at % 2 if wrong else at % 2))
        if at >= 20:
            steps.append(("label", f"id-{at - 20}", (at - 20) % 2))
    return log_of(steps)


def test_each_version_has_the_numbers_it_has_alone() -> None:
    config = small(join_window_s=3_600.0)

    def metrics(versions: tuple[int, ...], version: int) -> list[tuple[Any, ...]]:
        effects = play(Monitor(config, "driftloop.", 0), shadowed(600, versions), 700)
        assert effects.counters.get("duplicates", 0) == 0
        return [
            (one.window, one.total, one.total_rows)
            for one in effects.events
            if isinstance(one, MetricsComputed) and one.version == version
        ]

    for version in (1, 2):
        alone = metrics((version,), version)
        assert len(alone) == 11
        assert metrics((1, 2), version) == alone


@pytest.mark.parametrize("size", [1, 7, 64])
def test_shadow_versions_give_one_outcome_however_the_log_is_cut(size: int) -> None:
    log = shadowed(400, (1, 2, 3))
    whole = told(play(Monitor(small(), "driftloop.", 0), log, len(log)))
    assert told(play(Monitor(small(), "driftloop.", 0), log, size)) == whole


def test_a_family_outlives_its_eldest_a_rebuild_and_a_restart() -> None:
    config = small(max_pending=1_000)
    monitor = Monitor(config, "driftloop.", 0)
    steps: list[tuple[Any, ...]] = [("v1", "a"), *[("v1", f"x{at}") for at in range(600)], ("v2", "a")]
    steps += [("v1", f"y{at}") for at in range(600)]
    play(monitor, log_of(steps), 100)
    # The first answer has aged out, the second has not.
    assert monitor.buffer.tail > 0
    for again in (monitor, Monitor.from_snapshot(config, "driftloop.", 0, monitor.snapshot())):
        again.buffer._rebuild()
        (label,) = log_of([("label", "a", 1)])
        effects = again.process(batch_of([record("labels", 0, START_MS + 5_000, b"m", label.value)]))
        assert effects.counters["joined"] == 1


def test_no_row_is_older_than_the_oldest() -> None:
    pending = Pending()
    assert pending.newest_sibling < pending.tail
