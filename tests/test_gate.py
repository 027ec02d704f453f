"""The gate rejects by default: the same model, a lucky one, a slower, a larger one."""

from collections.abc import Callable

import numpy as np
import pytest

from driftloop.compression.gate import Trial, judge, paired_interval
from driftloop.compression.onnx_file import clean, load_onnx
from driftloop.compression.small_model import train_small_model
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import JobError
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, turning_rows

CONFIG = RepairConfig()
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


@pytest.fixture(scope="module")
def models() -> tuple[bytes, bytes]:
    return tuple(train_small_model(turning_rows(600, seed, turned=turned), SIGNATURE) for seed, turned in ((1, False), (2, True)))  # type: ignore[return-value]


def test_the_same_model_is_never_promoted(models: tuple[bytes, bytes]) -> None:
    for seed in range(30):
        for kind in ("repair", "compression"):
            trial = Trial(models[0], models[0], SIGNATURE, turning_rows(200, seed), kind)  # type: ignore[arg-type]
            verdict = judge(trial, CONFIG, even())
            assert not verdict.promoted
            assert verdict.difference == verdict.churn == 0.0


def test_a_better_model_is_promoted_with_its_figures(models: tuple[bytes, bytes]) -> None:
    verdict = judge(Trial(*models, SIGNATURE, turning_rows(75, 9, turned=True)), CONFIG, even())
    assert verdict.promoted
    assert "better than the champion" in verdict.reasons[0]
    assert verdict.candidate > 0.7 > 0.3 > verdict.champion
    assert verdict.interval[0] > 0.2
    assert verdict.latency_ratio == pytest.approx(1.0)


def test_a_slower_candidate_is_rejected_with_the_reason(models: tuple[bytes, bytes]) -> None:
    # Two calls a measurement, the two models in turns, the first of a round changing: champion 1 ms, candidate 2 ms.
    timer = ticking([0.0, 0.002, 0.0, 0.001, 0.0, 0.001, 0.0, 0.002])
    verdict = judge(Trial(*models, SIGNATURE, turning_rows(200, 9, turned=True)), CONFIG, timer)
    assert verdict.latency_ratio == pytest.approx(2.0)
    assert not verdict.promoted
    assert "2.00 times as long" in verdict.reasons[0]


def test_a_larger_file_is_rejected(models: tuple[bytes, bytes]) -> None:
    model = load_onnx(models[1])
    model.graph.doc_string = "x" * len(models[0])
    verdict = judge(Trial(models[0], model.SerializeToString(), SIGNATURE, turning_rows(200, 9, turned=True)), CONFIG, even())
    assert not verdict.promoted
    assert "times the champion's" in verdict.reasons[0]
    assert clean(model) == models[1]


def test_a_segment_that_loses_stops_a_candidate_that_wins_on_the_whole(models: tuple[bytes, bytes]) -> None:
    new, old = turning_rows(300, 9, turned=True), turning_rows(60, 10)
    rows = Rows(
        np.concatenate([new.features, old.features]),
        np.concatenate([new.labels, old.labels]),
        np.arange(360),
        ("north",) * 300 + ("south",) * 60,
    )
    verdict = judge(Trial(*models, SIGNATURE, rows), CONFIG, even())
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
        judge(Trial(*models, SIGNATURE, turning_rows(1, 0)), CONFIG, even())
