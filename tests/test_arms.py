"""A concept that turned is learnt again; one that returns is recalled; held-out rows stay unseen."""

import re

import numpy as np
import pytest

from driftloop.compression.arms import _is_below, repair, split
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.onnx_file import clean
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.runtime import Runner, outcomes
from driftloop.compression.small_model import train_small_model
from driftloop.compression.store import digest_of
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import JobError
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, sound_model, turning_rows

SIGNATURE = signature(4, 2)


def quiet(step: str, fraction: float, message: str) -> None:
    assert step
    assert 0 <= fraction <= 1


def version(number: int, onnx: bytes) -> ModelVersion:
    return ModelVersion(number, digest_of(onnx), onnx)


@pytest.fixture(scope="module")
def old() -> ModelVersion:
    return version(1, train_small_model(turning_rows(2000, 1), SIGNATURE))


@pytest.fixture(scope="module")
def turned() -> ModelVersion:
    return version(2, train_small_model(turning_rows(300, 2, turned=True), SIGNATURE))


def job(champion: ModelVersion, rows: Rows, earlier: tuple[ModelVersion, ...] = (), old_rows: Rows | None = None) -> Job:
    return Job("job", "model", "repair", champion, SIGNATURE, rows, old_rows, earlier)


def test_a_turned_concept_is_learnt_from_300_rows(old: ModelVersion) -> None:
    rows = turning_rows(300, 3, turned=True)
    repaired = repair(job(old, rows, old_rows=turning_rows(500, 4)), RepairConfig(), quiet)
    assert {candidate.arm for candidate in repaired.candidates} == {"finetune", "finetune_old", "scratch"}
    later = turning_rows(2000, 5, turned=True)
    scores = Runner(repaired.chosen.onnx, SIGNATURE).scores(later.features)
    assert outcomes(scores, later, "classification").mean() > 0.8
    assert repaired.trained_rows == 225


def test_a_returning_concept_is_recalled_over_seeds(old: ModelVersion, turned: ModelVersion) -> None:
    for seed in range(20):
        rows = turning_rows(300, 100 + seed)
        repaired = repair(job(turned, rows, (old,), turning_rows(1000, 6, turned=True)), RepairConfig(seed=seed), quiet)
        assert (repaired.chosen.arm, repaired.chosen.version) == ("recall", 1)


def test_a_recalled_version_without_a_known_level_still_meets_the_trained_arms(old: ModelVersion, turned: ModelVersion) -> None:
    repaired = repair(job(turned, turning_rows(300, 7), (old,)), RepairConfig(), quiet)
    assert not repaired.untrained
    assert repaired.chosen.version == 1
    assert {candidate.arm for candidate in repaired.candidates} == {"recall", "finetune", "scratch"}


def test_held_out_rows_do_not_change_what_is_trained(old: ModelVersion) -> None:
    rows = turning_rows(300, 8, turned=True)
    config = RepairConfig()
    training, holdout = split(rows, config)
    assert (len(training), len(holdout)) == (225, 75)
    other = Rows(rows.features, np.concatenate([training.labels, 1 - holdout.labels]), rows.offsets)
    trained = [
        {candidate.arm: digest_of(candidate.onnx) for candidate in repair(job(old, part), config, quiet).candidates}
        for part in (rows, other)
    ]
    assert trained[0] == trained[1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(old: ModelVersion) -> None:
    rows = turning_rows(200, 9, turned=True)
    digests = [
        [digest_of(candidate.onnx) for candidate in repair(job(old, rows), RepairConfig(seed=seed), quiet).candidates]
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_damaged_earlier_version_is_left_out(old: ModelVersion) -> None:
    broken = (ModelVersion(5, "5" * 64, b"garbage"), version(6, clean(sound_model())))
    repaired = repair(job(old, turning_rows(200, 10, turned=True), broken), RepairConfig(), quiet)
    assert "recall" not in {candidate.arm for candidate in repaired.candidates}


def test_too_few_rows_are_an_error(old: ModelVersion) -> None:
    with pytest.raises(JobError, match="at least 120"):
        repair(job(old, turning_rows(100, 11)), RepairConfig(), quiet)


def test_a_champion_that_is_back_at_the_level_before_trains_nothing(old: ModelVersion, turned: ModelVersion) -> None:
    steps = []
    asked = job(old, turning_rows(2000, 12), (turned,), turning_rows(1000, 13, turned=True))
    outcome = Optimizer(RepairConfig(), lambda: 0.0).run(asked, lambda step, fraction, message: steps.append(step))
    assert not outcome.verdict.promoted
    (reason,) = outcome.verdict.reasons
    assert re.fullmatch(r"the champion is back at the level before the change: [01]\.\d+ against [01]\.\d+", reason)
    assert (outcome.arm, outcome.onnx, outcome.recalled_version) == ("champion", None, None)
    assert {arm.arm for arm in outcome.arms} == {"champion", "recall"}
    assert (outcome.verdict.rows, outcome.verdict.candidate) == (500, outcome.verdict.champion)
    assert steps == ["recall", "done"]


def test_a_champion_below_the_level_before_is_trained_whatever_it_was(old: ModelVersion, turned: ModelVersion) -> None:
    repaired = repair(job(old, turning_rows(400, 14, turned=True), (), turning_rows(1000, 15)), RepairConfig(epochs=2), quiet)
    assert not repaired.kept
    assert "finetune" in {candidate.arm for candidate in repaired.candidates}


def test_a_level_is_missed_only_where_the_rows_show_it() -> None:
    def right(share: float, count: int) -> np.ndarray:
        return (np.arange(count) < round(share * count)).astype(float)

    before = right(0.886, 2000)
    assert not _is_below(right(0.863, 523), before, RepairConfig())
    assert _is_below(right(0.83, 523), before, RepairConfig())
    assert not _is_below(right(0.83, 75), before, RepairConfig())
    assert _is_below(right(0.58, 75), right(0.9, 60), RepairConfig())
    assert not _is_below(right(0.95, 75), before, RepairConfig())


@pytest.mark.parametrize("count", [0, 59])
def test_too_few_old_rows_tell_no_level(old: ModelVersion, count: int) -> None:
    repaired = repair(
        job(old, turning_rows(300, 16), (), turning_rows(count + 1, 17).take(slice(0, count))), RepairConfig(epochs=1), quiet
    )
    assert not repaired.kept
