"""A concept that turned is learnt again; one that returns is recalled; held-out rows stay unseen."""

import re
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest

from driftloop.compression.arms import Choice, run_arms
from driftloop.compression.cpu import Cpu
from driftloop.compression.early_exit import Standing, early_exit, is_below
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_context import JobContext, earlier_versions
from driftloop.compression.job_data import cut
from driftloop.compression.onnx_file import clean
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.runtime import Runner, outcomes
from driftloop.compression.small_model import train_small_model
from driftloop.compression.store import digest_of
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import JobError, ModelUnsupported
from driftloop.schemas.recipes import BUILT_IN, Finetune, Quantize
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, sound_model, turning_rows

pytestmark = pytest.mark.slow

SIGNATURE = signature(4, 2)
CONFIG = RepairConfig()


def quiet(news: Progress) -> None:
    assert news.step
    assert 0 <= news.fraction <= 1


def version(number: int, onnx: bytes) -> ModelVersion:
    return ModelVersion(number, digest_of(onnx), onnx)


@pytest.fixture(scope="module")
def old() -> ModelVersion:
    return version(1, train_small_model(turning_rows(2000, 1), SIGNATURE))


@pytest.fixture(scope="module")
def turned() -> ModelVersion:
    return version(2, train_small_model(turning_rows(300, 2, turned=True), SIGNATURE))


def job(champion: ModelVersion, rows: Rows, earlier: tuple[ModelVersion, ...] = (), old_rows: Rows | None = None) -> Job:
    return Job("job", "model", BUILT_IN["repair"], champion, SIGNATURE, rows, old_rows, earlier)


def context(asked: Job, seed: int = 0) -> JobContext:
    champion = Workpiece(asked.champion.onnx, asked.signature, version=asked.champion.version)
    data = cut(asked, champion, CONFIG)
    return JobContext(data, champion, earlier_versions(asked), Cpu(), seed, Track(quiet))


def repair(asked: Job, seed: int = 0, epochs: int = 20) -> Choice:
    arms = {
        name: tuple(msgspec.structs.replace(step, epochs=epochs) if isinstance(step, Finetune) else step for step in arm)
        for name, arm in asked.recipe.arms.items()
    }
    recipe = msgspec.structs.replace(asked.recipe, arms=arms)
    return run_arms(recipe, context(asked, seed), CONFIG.min_holdout_rows)


def test_a_turned_concept_is_learnt_from_300_rows(old: ModelVersion) -> None:
    rows = turning_rows(300, 3, turned=True)
    repaired = repair(job(old, rows, old_rows=turning_rows(500, 4)))
    assert {candidate.arm for candidate in repaired.candidates} == {"affine", "correct", "finetune", "finetune_old", "scratch"}
    later = turning_rows(2000, 5, turned=True)
    scores = Runner(repaired.chosen.piece.onnx, SIGNATURE).scores(later.features)
    assert outcomes(scores, later, "classification").mean() > 0.8
    assert repaired.chosen.piece.trained_rows == 225


def test_a_returning_concept_is_recalled_over_seeds(old: ModelVersion, turned: ModelVersion) -> None:
    for seed in range(20):
        rows = turning_rows(300, 100 + seed)
        repaired = repair(job(turned, rows, (old,), turning_rows(1000, 6, turned=True)), seed)
        assert (repaired.chosen.arm, repaired.chosen.piece.version) == ("recall", 1)
        assert repaired.exit is not None
        assert repaired.exit.rule == "recall_reaches_level"


def test_a_recalled_version_without_a_known_level_still_meets_the_trained_arms(old: ModelVersion, turned: ModelVersion) -> None:
    repaired = repair(job(turned, turning_rows(300, 7), (old,)))
    assert repaired.exit is None
    assert repaired.chosen.piece.version == 1
    assert {candidate.arm for candidate in repaired.candidates} == {"recall", "affine", "correct", "finetune", "scratch"}


def test_held_out_rows_do_not_change_what_is_trained(old: ModelVersion) -> None:
    rows = turning_rows(300, 8, turned=True)
    data = context(job(old, rows)).data
    training, holdout = data.training, data.holdout
    assert (len(training), len(holdout)) == (225, 75)
    other = Rows(rows.features, np.concatenate([training.labels, 1 - holdout.labels]), rows.offsets)
    trained = [
        {candidate.arm: digest_of(candidate.piece.onnx) for candidate in repair(job(old, part)).candidates}
        for part in (rows, other)
    ]
    assert trained[0] == trained[1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(old: ModelVersion) -> None:
    rows = turning_rows(200, 9, turned=True)
    digests = [[digest_of(candidate.piece.onnx) for candidate in repair(job(old, rows), seed).candidates] for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_damaged_earlier_version_is_left_out(old: ModelVersion) -> None:
    broken = (ModelVersion(5, "5" * 64, b"garbage"), version(6, clean(sound_model())))
    repaired = repair(job(old, turning_rows(200, 10, turned=True), broken))
    assert "recall" not in {candidate.arm for candidate in repaired.candidates}


def test_too_few_rows_are_an_error(old: ModelVersion) -> None:
    with pytest.raises(JobError, match="at least 120"):
        repair(job(old, turning_rows(100, 11)))


def test_a_champion_that_is_back_at_the_level_before_trains_nothing_where_the_recipe_says_so(
    old: ModelVersion, turned: ModelVersion
) -> None:
    steps = []
    asked = job(old, turning_rows(2000, 12), (turned,), turning_rows(1000, 13, turned=True))
    recipe = msgspec.structs.replace(asked.recipe, exits=("recall_reaches_level", "champion_reaches_level"))
    asked = replace(asked, recipe=recipe)
    outcome = Optimizer(CONFIG, lambda: 0.0).run(asked, lambda news: steps.append(news.step))
    assert not outcome.verdict.promoted
    (reason,) = outcome.verdict.reasons
    assert re.fullmatch(r"the champion is back at the level before the change: [01]\.\d+ against [01]\.\d+", reason)
    assert (outcome.arm, outcome.onnx, outcome.recalled_version) == ("champion", None, None)
    assert {arm.arm for arm in outcome.arms} == {"champion", "recall"}
    assert (outcome.verdict.rows, outcome.verdict.candidate) == (500, outcome.verdict.champion)
    assert outcome.early_exit is not None
    assert outcome.early_exit.rule == "champion_reaches_level"
    assert f"{outcome.early_exit.reached:.3g} against {outcome.early_exit.level:.3g}" in reason
    assert list(dict.fromkeys(steps)) == ["recall", "done"]


def test_few_rows_that_show_no_loss_do_not_end_the_built_in_search(old: ModelVersion) -> None:
    """A fifth of the answers is wrong now, which 75 rows hardly show beside 60 old ones; the gate alone decides."""
    rows = turning_rows(300, 21)
    labels = np.where(rows.features[:, 3] > 0.85, 1, rows.labels)
    before = turning_rows(60, 22)
    repaired = repair(job(old, Rows(rows.features, labels, rows.offsets), (), before), epochs=2)
    standing = Standing(champion_on(old, rows, labels), None, champion_on(old, before, before.labels), 0.9)
    assert early_exit(("champion_reaches_level",), standing) is not None
    assert repaired.exit is None
    assert "finetune" in {candidate.arm for candidate in repaired.candidates}


def champion_on(champion: ModelVersion, rows: Rows, labels: np.ndarray) -> np.ndarray:
    """What the champion makes of the newest 75 of the rows."""
    known = Rows(rows.features, labels, rows.offsets).take(slice(max(0, len(rows) - 75), len(rows)))
    return Workpiece(champion.onnx, SIGNATURE).results(known)


def test_a_champion_below_the_level_before_is_trained_whatever_it_was(old: ModelVersion, turned: ModelVersion) -> None:
    repaired = repair(job(old, turning_rows(400, 14, turned=True), (), turning_rows(1000, 15)), epochs=2)
    assert repaired.exit is None
    assert "finetune" in {candidate.arm for candidate in repaired.candidates}


def test_a_level_is_missed_only_where_the_rows_show_it() -> None:
    def right(share: float, count: int) -> np.ndarray:
        return (np.arange(count) < round(share * count)).astype(float)

    before = right(0.886, 2000)
    assert not is_below(right(0.863, 523), before, 0.9)
    assert is_below(right(0.83, 523), before, 0.9)
    assert not is_below(right(0.83, 75), before, 0.9)
    assert is_below(right(0.58, 75), right(0.9, 60), 0.9)
    assert not is_below(right(0.95, 75), before, 0.9)


@pytest.mark.parametrize("count", [0, 59])
def test_too_few_old_rows_tell_no_level(old: ModelVersion, count: int) -> None:
    repaired = repair(job(old, turning_rows(300, 16), (), turning_rows(count + 1, 17).take(slice(0, count))), epochs=1)
    assert repaired.exit is None


def test_a_champion_is_parsed_once_in_a_whole_job(old: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    load = onnx.load_model_from_string

    def counted(data: bytes) -> onnx.ModelProto:
        parsed.append(digest_of(data))
        return load(data)

    monkeypatch.setattr(onnx, "load_model_from_string", counted)
    Optimizer(CONFIG, iter(range(10**9)).__next__).run(job(old, turning_rows(300, 3, turned=True)), quiet)
    assert parsed.count(old.digest) == 1


def test_steps_of_an_arm_follow_each_other_and_a_failed_arm_says_why(old: ModelVersion) -> None:
    asked = job(old, turning_rows(300, 3, turned=True))
    arms = {"small": (Finetune(epochs=1, min_steps=0), Quantize()), "twice": (Quantize(), Quantize())}
    news: list[Progress] = []
    world = context(asked).on(Track(news.append))
    choice = run_arms(msgspec.structs.replace(asked.recipe, arms=arms), world, 60)
    assert [candidate.arm for candidate in choice.candidates] == ["small"]
    assert choice.chosen.piece.trained_rows == 225
    assert choice.chosen.piece.ranges
    assert any(one.step == "twice" and "quantized already" in one.message for one in news)
    with pytest.raises(ModelUnsupported, match="quantized already"):
        run_arms(msgspec.structs.replace(asked.recipe, arms={"twice": arms["twice"]}), world, 60)
    with pytest.raises(JobError, match=r"must give a candidate, got none \(again: .*; twice: .*quantized already"):
        run_arms(msgspec.structs.replace(asked.recipe, arms={"again": arms["twice"], "twice": arms["twice"]}), world, 60)
