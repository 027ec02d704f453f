"""Every judged training row is answered by what was trained without it, by an arm that other rows chose."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from driftloop.compression.arms import run_arms
from driftloop.compression.cpu import Cpu
from driftloop.compression.crossing import CROSSED_ROWS, Crossing
from driftloop.compression.gate import Trial, judge
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_context import JobContext, earlier_versions
from driftloop.compression.job_data import JobData, cut
from driftloop.compression.small_model import train_small_model
from driftloop.compression.steps import STEPS
from driftloop.compression.store import digest_of
from driftloop.compression.track import Progress, Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import JobError
from driftloop.schemas.recipes import Affine, Arm, Finetune, GateRule, Quantize, Recall, Recipe
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, turning_rows

SIGNATURE = signature(4, 2)
QUICK = Finetune(epochs=1, min_steps=0)


def data_of(count: int) -> JobData:
    rows = turning_rows(count, 1)
    return JobData(rows, turning_rows(75, 2), None, rows.features)


@pytest.fixture(scope="module")
def champion() -> ModelVersion:
    onnx = train_small_model(turning_rows(1000, 1), SIGNATURE)
    return ModelVersion(2, digest_of(onnx), onnx)


def context(champion: ModelVersion, recipe: Recipe, rows: Rows, news: list[Progress] | None = None) -> JobContext:
    earlier = (ModelVersion(1, "1" * 64, train_small_model(turning_rows(100, 5), SIGNATURE)),)
    job = Job("j", "m", recipe, champion, SIGNATURE, rows, None, earlier)
    piece = Workpiece(champion.onnx, SIGNATURE, version=2)
    told = [] if news is None else news
    return JobContext(cut(job, piece, RepairConfig()), piece, earlier_versions(job), Cpu(), 0, Track(told.append))


def recipe_of(gate: GateRule | None = None, **arms: Arm) -> Recipe:
    return Recipe(name="test", arms=arms, gate=GateRule(min_gain=0.0) if gate is None else gate)


@pytest.mark.parametrize("count", [60, 225, 1000, CROSSED_ROWS])
def test_each_row_is_judged_once_by_what_the_others_train(count: int) -> None:
    crossing = Crossing.of(data_of(count))
    judged = []
    for data, rows in crossing.parts():
        assert not set(rows.offsets) & set(data.training.offsets)
        assert len(rows) + len(data.training) == count
        judged += rows.offsets.tolist()
    assert judged == crossing.judged.offsets.tolist() == list(range(count))
    assert sum(mask.astype(int) for mask in crossing.masks()).tolist() == [1] * count
    assert all(abs(one.sum() - other.sum()) <= 1 for one, other in pairwise(crossing.masks()))


def test_of_many_rows_the_newest_third_is_judged() -> None:
    crossing = Crossing.of(data_of(CROSSED_ROWS + 3))
    ((data, rows),) = crossing.parts()
    assert (len(data.training), len(rows)) == (2002, 1001)
    assert rows.offsets[0] == 2002
    assert crossing.evidence(np.zeros(1001), lambda mask: np.zeros(1001)) is None


def test_evidence_is_that_of_who_was_chosen_by_other_rows() -> None:
    crossing = Crossing.of(data_of(9))
    asked: list[list[bool]] = []

    def chosen(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return np.full(9, float(len(asked)))

    found = crossing.evidence(np.zeros(9), chosen)
    assert found is not None
    assert found.candidate.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [[not one for one in rows] for rows in asked] == [mask.tolist() for mask in crossing.masks()]


def test_a_lucky_arm_is_no_evidence(champion: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty arms that answer at random: the best of them looks good on the rows that chose it, and on no others."""
    gains = []
    for seed in range(8):
        recipe = recipe_of(**{f"arm{at}": (Affine(ridge=float(at)),) for at in range(20)})
        around = context(champion, recipe, turning_rows(300, seed + 10))
        rng = np.random.default_rng(seed)

        def guess(step: Affine, piece: Workpiece, context: JobContext, rng: np.random.Generator = rng) -> Workpiece:
            made = piece.changed(piece.onnx)
            monkeypatch.setattr(type(made), "results", lambda self, rows: (rng.random(len(rows)) < 0.8).astype(float))
            return made

        monkeypatch.setitem(STEPS, Affine, guess)
        choice = run_arms(recipe, around, 60)
        monkeypatch.undo()
        assert choice.evidence is not None
        gains.append([choice.chosen.metric - 0.8, choice.evidence.candidate.mean() - 0.8])
    lucky, honest = np.mean(gains, axis=0)
    assert lucky > 0.03
    assert abs(honest) < 0.025


def test_the_chosen_arm_is_made_of_all_rows_but_the_held_out(champion: ModelVersion) -> None:
    rows = turning_rows(300, 3, turned=True)
    news: list[Progress] = []
    recipe = recipe_of(tuned=(QUICK,), mapped=(Affine(),))
    choice = run_arms(recipe, context(champion, recipe, rows, news), 60)
    assert (choice.chosen.arm, choice.chosen.piece.trained_rows, choice.chosen.whole) == ("mapped", 225, True)
    assert {one.arm: one.piece.trained_rows for one in choice.candidates} == {"tuned": 150, "mapped": 225}
    assert all(len(one.results) == 225 for one in choice.candidates)
    trial = Trial(Workpiece(champion.onnx, SIGNATURE).runner, choice.chosen.piece.runner, rows.take(slice(225, 300)))
    alone = judge(trial, recipe.gate, iter(range(10**6)).__next__)
    whole = judge(replace(trial, evidence=choice.evidence), recipe.gate, iter(range(10**6)).__next__)
    assert (alone.rows, whole.rows) == (75, 300)
    assert whole.interval[1] - whole.interval[0] < 0.7 * (alone.interval[1] - alone.interval[0])
    assert whole.promoted


def test_one_arm_that_may_lose_a_little_is_made_once(champion: ModelVersion) -> None:
    recipe = recipe_of(GateRule(max_loss=0.01), small=(QUICK, Quantize()))
    choice = run_arms(recipe, context(champion, recipe, turning_rows(400, 3)), 60)
    assert choice.evidence is None
    assert (choice.chosen.piece.trained_rows, len(choice.chosen.results)) == (300, 100)


def test_a_recalled_version_is_judged_on_all_rows_too(champion: ModelVersion) -> None:
    recipe = recipe_of(recall=(Recall(),))
    choice = run_arms(recipe, context(champion, recipe, turning_rows(300, 3)), 60)
    assert choice.chosen.piece.version == 1
    assert choice.evidence is not None
    assert np.array_equal(choice.evidence.candidate, choice.chosen.results)


def test_an_arm_that_fails_at_last_gives_way_to_the_next(champion: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = STEPS[Affine]

    def only_few(step: Affine, piece: Workpiece, context: JobContext) -> Workpiece:
        if len(context.data.training) > 200:
            raise JobError("error", "too many")
        return fitted(step, piece, context)

    monkeypatch.setitem(STEPS, Affine, only_few)
    rows = turning_rows(300, 3, turned=True)
    recipe = recipe_of(tuned=(QUICK,), mapped=(Affine(),))
    choice = run_arms(recipe, context(champion, recipe, rows), 60)
    assert choice.chosen.arm == "tuned"
    lonely = recipe_of(mapped=(Affine(),))
    with pytest.raises(JobError, match="too many"):
        run_arms(lonely, context(champion, lonely, rows), 60)


def test_what_is_worse_on_the_newest_rows_is_not_promoted(champion: ModelVersion) -> None:
    """A concept that turned and is back: the rows before the newest ones speak for the turned model, these against it."""
    turned = train_small_model(turning_rows(300, 2, turned=True), SIGNATURE)
    before, newest = turning_rows(225, 3, turned=True), turning_rows(75, 4)
    models = [Workpiece(data, SIGNATURE) for data in (champion.onnx, turned)]
    crossing = Crossing.of(JobData(before, newest, None, before.features))
    results = [model.results(before) for model in models]
    evidence = crossing.evidence(results[0], lambda rows: results[1])
    verdict = judge(
        Trial(models[0].runner, models[1].runner, newest, evidence=evidence), GateRule(min_gain=0.0), iter(range(10**6)).__next__
    )
    assert verdict.interval[0] > 0
    assert not verdict.promoted
    assert verdict.reasons[0].startswith("worse than the champion on the newest rows: interval [-")


def test_segments_stay_beside_their_rows() -> None:
    names = tuple("ab"[at % 2] for at in range(5))
    rows = turning_rows(5, 1)
    named = Rows(rows.features, rows.labels, rows.offsets, names)
    assert rows.followed_by(rows).segments is None
    assert named.followed_by(rows).segments == (*names, *(None,) * 5)
    assert rows.followed_by(named).segments == (*(None,) * 5, *names)
    assert named.followed_by(rows).labels.tolist() == [*rows.labels, *rows.labels]
