"""Metrics: equal to the exact formulas, told to the row, however many versions share the arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.detectors.columns import JoinedRows
from driftloop.detectors.metric_sums import Window
from driftloop.detectors.metrics import UNSEEN, metrics, positive_class
from driftloop.detectors.roc import BINS, area, score_bins
from driftloop.detectors.scorekeeper import Scorekeeper, take_joined


def rows_of(output: np.ndarray, label: np.ndarray, scores: np.ndarray) -> JoinedRows:
    n = np.arange(len(output))
    error = np.abs(output - label)
    return JoinedRows(n, n * 0, n * 0, n, n, n * 1.0, output.astype(float), label.astype(float), error, scores)


def exact_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def sums_of(rows: JoinedRows, regression: bool = False) -> Window:
    keeper = Scorekeeper(len(rows.order))
    (full,) = list(keeper.add(np.zeros(len(rows.order), np.int64), rows, lambda slot: regression))
    assert full == (0, len(rows.order) - 1)
    return keeper.turn(0)[0]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sure", [0.1, 1.0, 5.0])
def test_classification_equals_the_exact_formulas(classes: int, sure: float) -> None:
    rng = np.random.default_rng(classes)
    n = 3000
    label = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * (np.arange(classes) == label[:, None])
    scores = np.exp(logits * sure)
    scores /= scores.sum(axis=1, keepdims=True)
    output = scores.argmax(axis=1)
    positive = 1 if classes == 2 else None
    found = metrics("classification", sums_of(rows_of(output, label, scores)), positive)
    counted = [1] if classes == 2 else range(classes)
    precision = [float((label[output == c] == c).mean()) for c in counted]
    recall = [float((output[label == c] == c).mean()) for c in counted]
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    chance = np.clip(scores[np.arange(n), label], 1e-15, 1.0)
    auc = [exact_auc(scores[:, c], label == c) for c in counted]
    assert found["accuracy"] == pytest.approx(float((output == label).mean()))
    assert found["precision"] == pytest.approx(np.mean(precision))
    assert found["recall"] == pytest.approx(np.mean(recall))
    assert found["f1"] == pytest.approx(np.mean(f1))
    assert found["log_loss"] == pytest.approx(float(-np.log(chance).mean()), abs=1e-6)
    assert found["roc_auc"] == pytest.approx(np.mean(auc), abs=0.005)


def test_regression_equals_the_exact_formulas() -> None:
    rng = np.random.default_rng(0)
    output, label = rng.normal(size=500), rng.normal(size=500)
    found = metrics("regression", sums_of(rows_of(output, label, np.empty((500, 0))), regression=True), None)
    assert found == {
        "mae": pytest.approx(np.abs(output - label).mean()),
        "rmse": pytest.approx(np.sqrt(((output - label) ** 2).mean())),
    }


def test_without_scores_there_is_no_loss_and_no_area() -> None:
    found = metrics("classification", sums_of(rows_of(np.array([0, 1]), np.array([0, 0]), np.full((2, 3), np.nan))), None)
    assert set(found) == {"accuracy", "precision", "recall", "f1"}
    assert metrics("classification", Window(0, 0), None) == {}


def test_the_positive_class_follows_from_what_was_seen() -> None:
    def seen(*classes: int) -> Window:
        return sums_of(rows_of(np.array(classes), np.array(classes), np.empty((len(classes), 0))))

    assert positive_class(seen(0, 1), (0, 1)) == 1
    assert positive_class(seen(0, 1), (True, False)) == 0
    assert positive_class(seen(0, 1), (0, 1, 2)) == 1
    assert positive_class(seen(0, 0), (0, 1)) == UNSEEN
    assert positive_class(seen(0, 2), (0, 1, 2)) is None
    assert positive_class(seen(0, 1), ("no", "yes")) is None
    assert positive_class(seen(0, 2), (0, 1)) is None
    assert metrics("classification", seen(0, 0), UNSEEN)["precision"] == 0.0


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5), slots=st.integers(1, 4))
def test_windows_close_at_the_same_rows_with_the_same_sums_for_any_cut(sizes: list[int], slots: int) -> None:
    rng = np.random.default_rng(slots)
    n = 400
    slot, label = rng.integers(0, slots, n), rng.integers(0, 9, n)
    rows = rows_of(rng.integers(0, 9, n), label, rng.dirichlet(np.ones(9), n))

    def play(cuts: list[int]) -> list[object]:
        keeper, told, start, turn = Scorekeeper(37), [], 0, 0
        while start < n:
            part = slice(start, min(n, start + cuts[turn % len(cuts)]))
            for one, row in keeper.add(slot[part], take_joined(rows, part), lambda slot: slot == 1):
                window, total = keeper.turn(one)
                task = "regression" if one == 1 else "classification"
                told.append((start + row, one, window.rows, total.rows, metrics(task, window, None), metrics(task, total, None)))
            start, turn = part.stop, turn + 1
        return sorted(told, key=lambda one: one[:2])

    whole = play([n])
    assert whole
    assert play(sizes) == whole


def test_score_bins_rise_with_the_score() -> None:
    scores = np.sort(np.concatenate((np.linspace(0, 1, 10_001), 10.0 ** np.linspace(-9, 0, 100), [-1.0, 2.0])))
    bins = score_bins(scores)
    assert (np.diff(bins) >= 0).all()
    assert (bins[0], bins[-1]) == (0, BINS - 1)


def test_area_needs_both_kinds() -> None:
    assert area(np.array([1, 0]), np.array([0, 0])) is None
    assert area(np.array([3, 0]), np.array([0, 2])) == 1.0
    assert area(np.array([3]), np.array([2])) == 0.5
