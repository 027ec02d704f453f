"""The gate rejects by default: the same model, a lucky one, a slower, a larger one."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from driftloop.compression.gate import Trial, judge, paired_interval
from driftloop.compression.onnx_file import clean, load_onnx
from driftloop.compression.runtime import Runner
from driftloop.compression.small_model import train_small_model
from driftloop.schemas.errors import JobError
from driftloop.schemas.recipes import BUILT_IN, GateRule
from driftloop.schemas.rows import Rows
from driftloop.schemas.verdicts import GateVerdict
from driftloop.tests.onnx_graphs import signature, turning_rows

GAIN, LOSS = (BUILT_IN[name].gate for name in ("repair", "int8"))
SIGNATURE = signature(4, 2)


def ticking(steps: list[float]) -> Callable[[], float]:
    """Return a timer whose calls last as long as `steps` say, in turns."""
    state = {"now": 0.0, "calls": 0}

    def timer() -> float:
        state["now"] += steps[state["calls"] % len(steps)]
        state["calls"] += 1
        return state["now"]

    return timer


def even() -> Callable[[], float]:
    return ticking([0.001])


def judged(models: tuple[bytes, bytes], rows: Rows, rule: GateRule = GAIN, timer: Callable[[], float] | None = None) -> GateVerdict:
    champion, candidate = (Runner(data, SIGNATURE) for data in models)
    return judge(Trial(champion, candidate, rows), rule, even() if timer is None else timer)


@pytest.fixture(scope="module")
def models() -> tuple[bytes, bytes]:
    return tuple(train_small_model(turning_rows(600, seed, turned=turned), SIGNATURE) for seed, turned in ((1, False), (2, True)))  # type: ignore[return-value]


def test_the_same_model_is_never_promoted(models: tuple[bytes, bytes]) -> None:
    for seed in range(30):
        for rule in (GAIN, LOSS):
            verdict = judged((models[0], models[0]), turning_rows(200, seed), rule)
            assert not verdict.promoted
            assert verdict.difference == verdict.churn == 0.0


def test_a_better_model_is_promoted_with_its_figures(models: tuple[bytes, bytes]) -> None:
    verdict = judged(models, turning_rows(75, 9, turned=True))
    assert verdict.promoted
    assert "better than the champion" in verdict.reasons[0]
    assert verdict.candidate > 0.7 > 0.3 > verdict.champion
    assert verdict.interval[0] > 0.2
    assert verdict.latency_ratio == pytest.approx(1.0)


def test_a_slower_candidate_is_rejected_with_the_reason(models: tuple[bytes, bytes]) -> None:
    # Two calls a measurement, the two models in turns, the first of a round changing: champion 1 ms, candidate 2 ms.
    timer = ticking([0.0, 0.002, 0.0, 0.001, 0.0, 0.001, 0.0, 0.002])
    verdict = judged(models, turning_rows(200, 9, turned=True), timer=timer)
    assert verdict.latency_ratio == pytest.approx(2.0)
    assert not verdict.promoted
    assert "2.00 times as long" in verdict.reasons[0]
    # The same in microseconds: 10 more are within the slack, 10 times as many are not.
    for unit, promoted in ((1e-5, True), (1e-4, False)):
        brief = ticking([0.0, 2 * unit, 0.0, unit, 0.0, unit, 0.0, 2 * unit])
        found = judged(models, turning_rows(200, 9, turned=True), timer=brief)
        assert found.latency_ratio == pytest.approx(2.0)
        assert found.promoted == promoted


def test_a_larger_file_is_rejected(models: tuple[bytes, bytes]) -> None:
    model = load_onnx(models[1])
    model.graph.doc_string = "x" * 300_000
    verdict = judged((models[0], model.SerializeToString()), turning_rows(200, 9, turned=True))
    assert not verdict.promoted
    assert "times the champion's" in verdict.reasons[0]
    model.graph.doc_string = "x" * 200_000
    small = judged((models[0], model.SerializeToString()), turning_rows(200, 9, turned=True))
    assert small.promoted, "what is within the slack does not count, whatever the ratio"
    rule = msgspec.structs.replace(GAIN, size_slack_bytes=0)
    assert not judged((models[0], model.SerializeToString()), turning_rows(200, 9, turned=True), rule).promoted
    assert clean(model) == models[1]


def test_a_segment_that_loses_stops_a_candidate_that_wins_on_the_whole(models: tuple[bytes, bytes]) -> None:
    new, old = turning_rows(300, 9, turned=True), turning_rows(60, 10)
    rows = Rows(
        np.concatenate([new.features, old.features]),
        np.concatenate([new.labels, old.labels]),
        np.arange(360),
        ("north",) * 300 + ("south",) * 60,
    )
    verdict = judged(models, rows)
    assert verdict.interval[0] > 0
    assert not verdict.promoted
    assert (verdict.worst_segment, "south" in verdict.reasons[0]) == ("south", True)


def test_chance_seldom_wins() -> None:
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(2000):
        one, other = rng.random(75) < 0.7, rng.random(75) < 0.7
        wins += paired_interval(one.astype(float) - other.astype(float), 0.9, "classification")[0] > 0
    assert 0.02 < wins / 2000 < 0.065


def test_three_rows_of_75_convince_nobody_and_few_rows_are_an_error(models: tuple[bytes, bytes]) -> None:
    differences = np.zeros(75)
    differences[:3] = 1
    assert paired_interval(differences, 0.9, "classification")[0] < 0
    with pytest.raises(JobError, match="at least 2"):
        judged(models, turning_rows(1, 0))


def test_a_class_that_loses_more_than_its_floor_stops_a_candidate(models: tuple[bytes, bytes]) -> None:
    # The candidate is right on every row, or on the turned ones alone; the champion on the others.
    right, wrong = turning_rows(400, 11, turned=True), turning_rows(400, 12)
    rows = right.where(right.labels == 0)
    rare = wrong.where(wrong.labels == 1).take(slice(0, 40))
    mixed = Rows(
        np.concatenate([rows.features, rare.features]), np.concatenate([rows.labels, rare.labels]), np.arange(len(rows) + 40)
    )
    free = judged(models, mixed)
    assert free.promoted
    assert free.worst_class == 1
    assert free.worst_class_difference is not None
    assert free.worst_class_difference < -0.5
    floored = judged(models, mixed, GateRule(min_gain=0.0, max_class_loss=0.1))
    assert not floored.promoted
    assert floored.reasons[0].startswith("class 1 loses 0.")
    assert judged(models, mixed, GateRule(min_gain=0.0, max_class_loss=0.1, min_class_rows=41)).promoted


def test_each_bound_of_a_rule_counts_by_itself(models: tuple[bytes, bytes]) -> None:
    rows = turning_rows(200, 9, turned=True)
    open_rule = GateRule(min_gain=0.0, max_segment_loss=None)
    assert judged(models, rows, open_rule).promoted
    for bound, words in (
        ({"min_gain": 0.99}, "by more than 0.99"),
        ({"max_churn": 0.1}, "otherwise, more than 10.0%"),
        ({"max_size_ratio": 0.5}, "not below 0.50"),
        ({"max_latency_ratio": 0.5}, "more than 0.50"),
        ({"min_gain": None, "max_loss": 0.01}, ""),
    ):
        verdict = judged(models, rows, msgspec.structs.replace(open_rule, **bound))
        assert verdict.promoted == (not words)
        assert words in verdict.reasons[0]
    back = judged((models[1], models[0]), rows, GateRule(max_loss=0.01))
    assert "a loss of at most 0.01 is not shown" in back.reasons[0]
