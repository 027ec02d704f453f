"""Scores: what they mean follows from the classes; what is no chance of a class is left out, counted, and never told as one."""

import json
from typing import Any

import numpy as np
import pytest

from driftloop.detectors.columns import CONTRARY, FIT, UNFIT
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.scores import chances
from driftloop.schemas.events import MetricsComputed
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, merged, play, record, small

NAN = float("nan")
ROWS = 2_000


@pytest.mark.parametrize(
    ("given", "output", "binary", "found", "fitness"),
    [
        ([0.2, 0.8], 1, False, [0.2, 0.8], FIT),
        ([0.2, 0.8], 0, False, [0.2, 0.8], CONTRARY),
        ([0.5, 0.5], 0, False, [0.5, 0.5], FIT),
        ([0.2, 0.7, 0.1], 5, False, [0.2, 0.7, 0.1], CONTRARY),
        ([0.33, 0.33, 0.33], 2, False, [0.33, 0.33, 0.33], FIT),
        ([-3.0, 4.0], 1, False, [NAN, NAN], UNFIT),
        ([0.9, 0.9], 1, False, [NAN, NAN], UNFIT),
        ([-1.0, 2.0], 1, False, [NAN, NAN], UNFIT),
        ([0.75], 1, True, [0.25, 0.75], FIT),
        ([0.75], 0, True, [0.25, 0.75], CONTRARY),
        ([0.75], 1, False, [NAN], UNFIT),
        ([-3.5], 0, True, [NAN, NAN], UNFIT),
        ([NAN, NAN], 0, True, [NAN, NAN], FIT),
        ([], 0, True, [], FIT),
    ],
)
def test_scores_of_one_row(given: list[float], output: int, binary: bool, found: list[float], fitness: int) -> None:
    row = np.array([given], np.float32), np.array([float(output)]), np.array([binary])
    scores, fit = chances(*row)
    assert np.allclose(scores, [found], equal_nan=True)
    assert (FIT if fit is None else int(fit[0])) == fitness
    # The same among rows of other widths.
    wide = np.full((3, 4), np.nan, np.float32)
    wide[0, : len(given)], wide[2] = given, 0.25
    scores, fit = chances(wide, np.array([float(output), 0.0, 0.0]), np.array([binary, False, False]))
    assert np.allclose(scores[0, : len(found)], found, equal_nan=True)
    assert np.isnan(scores[0, len(found) :]).all()
    assert (FIT if fit is None else int(fit[0])) == fitness


def log(form: Any, classes: list[Any] | None, outputs: list[Any]) -> list[Record]:
    """Return predictions whose scores are `form(chance of the second class)`, each with its label; AUC of the chances is about .92."""
    rng = np.random.default_rng(1)
    label = rng.random(ROWS) < 0.4
    logit = rng.normal(np.where(label, 1.0, -1.0), 1.0)
    found = []
    if classes is not None:
        signature = {"task": "classification", "features": ["a"], "classes": classes}
        value = {"type": "model_registered", "model": "m", "version": 1, "digest": "d", "uri": "u", "size_bytes": 1}
        found.append(record("models", 0, START_MS, b"m", value | {"signature": signature}))
    for at in range(ROWS):
        made = {"model": "m", "version": 1, "prediction_id": f"{at}", "features": {"a": 0.5}, "output": outputs[int(logit[at] > 0)]}
        chance = float(1.0 / (1.0 + np.exp(-2.0 * logit[at])))
        found.append(record("predictions", at, START_MS + at, b"m", made | {"scores": form(chance, logit[at])}))
        said = {"model": "m", "prediction_id": f"{at}", "label": outputs[int(label[at])]}
        found.append(record("labels", at, START_MS + at, b"m", json.dumps(said).encode()))
    return merged(found)


def last(form: Any, classes: list[Any] | None, outputs: list[Any]) -> MetricsComputed:
    """Return the newest metrics of such a log."""
    effects = play(Monitor(small(metrics_every_rows=ROWS), "d.", 0), log(form, classes, outputs), 700)
    assert not effects.dead_letters
    return next(event for event in reversed(effects.events) if isinstance(event, MetricsComputed))


def both(chance: float, logit: float) -> list[float]:
    return [1 - chance, chance]


@pytest.mark.parametrize("outputs", [[0, 1], ["no", "yes"], [False, True]])
def test_a_single_score_is_the_chance_of_the_second_class_of_a_signature(outputs: list[Any]) -> None:
    wanted = last(both, outputs, outputs)
    found = last(lambda chance, logit: [chance], outputs, outputs)
    assert 0.9 < wanted.total["roc_auc"] < 0.94
    assert found.total == pytest.approx(wanted.total, abs=1e-6)
    assert found.counts["unfit_scores"] == 0


def test_true_and_false_say_whose_chance_a_single_score_is_without_a_signature() -> None:
    found = last(lambda chance, logit: [chance], None, [False, True])
    assert 0.9 < found.total["roc_auc"] < 0.94


@pytest.mark.parametrize("outputs", [[0, 1], ["no", "yes"]])
def test_a_single_score_of_classes_that_nobody_named_is_left_out_and_counted(outputs: list[Any]) -> None:
    found = last(lambda chance, logit: [chance], None, outputs)
    assert not {"roc_auc", "log_loss"} & set(found.total)
    assert found.total["accuracy"] > 0.8
    assert found.counts["unfit_scores"] == ROWS


@pytest.mark.parametrize("classes", [None, [0, 1]])
@pytest.mark.parametrize(
    "form",
    [
        lambda chance, logit: [-logit, logit],
        lambda chance, logit: [0.0, logit],
        lambda chance, logit: [logit * 3, 1 - logit * 3],
        lambda chance, logit: [chance, chance],
    ],
    ids=["logits", "logit", "sum to 1", "twice"],
)
def test_what_is_no_chance_is_never_told_as_loss_or_area(form: Any, classes: list[Any] | None) -> None:
    found = last(form, classes, [0, 1])
    assert not {"roc_auc", "log_loss"} & set(found.total)
    assert found.total["accuracy"] > 0.8
    assert found.counts["unfit_scores"] > ROWS / 2


def test_a_few_unfit_rows_are_left_out_and_the_others_told() -> None:
    wanted = last(both, [0, 1], [0, 1])
    found = last(lambda chance, logit: [-5.0, 5.0] if 0.5 < chance < 0.55 else [1 - chance, chance], [0, 1], [0, 1])
    assert found.total["roc_auc"] == pytest.approx(wanted.total["roc_auc"], abs=0.02)
    assert 0 < found.counts["unfit_scores"] < ROWS / 10


def test_scores_in_another_order_than_the_classes_are_not_told() -> None:
    found = last(lambda chance, logit: [chance, 1 - chance], [0, 1], [0, 1])
    assert not {"roc_auc", "log_loss"} & set(found.total)
    assert found.counts["contrary_scores"] == ROWS


def test_a_threshold_of_its_own_does_not_silence_a_model() -> None:
    def careful(chance: float, logit: float) -> list[float]:
        # Says 1 from a chance of .12 on.
        low = 1.0 / (1.0 + np.exp(-2.0 * (logit - 1.0)))
        return [1 - low, low]

    found = last(careful, [0, 1], [0, 1])
    assert 0.9 < found.total["roc_auc"] < 0.94
    assert found.counts["contrary_scores"] > 0
