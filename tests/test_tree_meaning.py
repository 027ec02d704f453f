"""What sums of trees mean: each form in which exporters make scores of them is found, and one that nobody writes is refused."""

import numpy as np
import pytest

from driftloop.compression.ml_attributes import Numbers
from driftloop.compression.tree_ensemble import logistic, softmax
from driftloop.compression.tree_meaning import best_constants, classes_meaning, number_meaning, slopes
from driftloop.schemas.errors import ModelUnsupported

ROWS = 60
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, ROWS).astype(np.float64)
ONE, TWO, THREE = (RNG.normal(size=(ROWS, count)) for count in (1, 2, 3))
SHARES = RNG.dirichlet([1, 1, 1], ROWS)
PART = SHARES[:, :1]


@pytest.mark.parametrize(
    ("sums", "scores", "loss"),
    [
        (ONE, np.hstack([logistic(-ONE), logistic(ONE)]), "logistic"),
        (ONE, np.hstack([-ONE, ONE]), "logistic"),
        (PART, np.hstack([1 - PART, PART]), "share"),
        (TWO, softmax(TWO), "softmax"),
        (TWO, logistic(TWO), "logistic"),
        (THREE, softmax(THREE), "softmax"),
        (THREE, THREE, "softmax"),
        (SHARES, SHARES, "share"),
    ],
)
def test_each_form_is_found_with_its_loss(sums: Numbers, scores: Numbers, loss: str) -> None:
    # What float32 leaves of it.
    found = classes_meaning(sums, scores.astype(np.float32).astype(np.float64), LABELS)
    assert found.loss == loss
    assert np.allclose(found.scores(sums), scores)
    wanted = np.eye(scores.shape[1])[LABELS.astype(np.int64)]
    assert np.array_equal(found.targets, wanted[:, 1:] if sums.shape[1] == 1 else wanted)
    assert found.chances


@pytest.mark.parametrize(
    ("sums", "scores"),
    [
        (ONE, np.hstack([logistic(-2 * ONE), logistic(2 * ONE)])),
        (ONE, np.hstack([1 - ONE, ONE])),  # no chances: they leave [0, 1]
        (THREE, softmax(2 * THREE)),
        (THREE, softmax(THREE)[:, ::-1]),
        (THREE, logistic(THREE) / logistic(THREE).sum(axis=1, keepdims=True)),
        (TWO, THREE),
        (ONE, THREE),
    ],
)
def test_another_form_is_refused_with_a_cure(sums: Numbers, scores: Numbers) -> None:
    with pytest.raises(
        ModelUnsupported, match=r"scores of the model must be .* sums themselves \(use another step, such as affine"
    ):
        classes_meaning(sums, scores, LABELS)


def test_numbers_lie_on_a_line_of_the_sums() -> None:
    labels = RNG.normal(size=ROWS)
    found = number_meaning(ONE, 100 + ONE / 8, labels)
    assert (found.loss, found.chances) == ("squared", False)
    assert np.allclose(found.scores(ONE), 100 + ONE / 8)
    assert np.allclose(found.targets[:, 0], (labels - 100) * 8)
    alike = np.full((ROWS, 1), 3.0)
    assert np.allclose(number_meaning(alike, alike + 1, labels).targets[:, 0], labels - 1)
    for sums, scores in ((ONE, np.exp(ONE)), (ONE, np.zeros_like(ONE)), (TWO, ONE)):
        with pytest.raises(ModelUnsupported, match=r"scores of the model must be .*use another step"):
            number_meaning(sums, scores, labels)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_slopes_are_those_of_the_loss(count: int) -> None:
    sums, step = RNG.normal(size=(20, count)), 1e-6
    hits = np.eye(count)[RNG.integers(0, count, 20)]
    losses = {
        "squared": lambda numbers: 0.5 * (numbers - hits) ** 2,
        "logistic": lambda numbers: np.log1p(np.exp(numbers)) - hits * numbers,
        "softmax": lambda numbers: -np.log(softmax(numbers)) * hits,
    }
    for name, loss in losses.items():
        found = slopes(name, sums, hits)  # type: ignore[arg-type]
        for column in range(count):
            moved = sums.copy()
            moved[:, column] += step
            first = (loss(moved) - loss(sums)).sum(axis=1) / step
            assert np.allclose(found.first[:, column], first, atol=1e-4), name
            later = slopes(name, moved, hits)  # type: ignore[arg-type]
            bend = (later.first[:, column] - found.first[:, column]) / step
            assert np.allclose(found.second[:, column], bend * (count / (count - 1) if name == "softmax" else 1), atol=1e-4), name


def test_the_best_constants_leave_no_slope_but_for_half_a_row() -> None:
    numbers = number_meaning(ONE, ONE, LABELS * 10)
    assert np.allclose(best_constants(numbers), LABELS.mean() * 10)
    for sums, scores in ((TWO, softmax(TWO)), (TWO, logistic(TWO))):
        meaning = classes_meaning(sums, scores, LABELS)
        constant = np.tile(best_constants(meaning), (ROWS, 1))
        assert np.abs(slopes(meaning.loss, constant, meaning.targets).first.mean(axis=0)).max() < 0.5 / ROWS
    one_class = classes_meaning(TWO, softmax(TWO), np.zeros(ROWS))
    assert np.isfinite(best_constants(one_class)).all()
