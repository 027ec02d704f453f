"""The map of scores turns what turned, moves what moved, and leaves alone what did not change."""

import numpy as np
import pytest

from driftloop.compression import affine
from driftloop.compression.affine import centred, fit_map
from driftloop.compression.cpu import Cpu
from driftloop.compression.job_context import JobContext
from driftloop.compression.job_data import JobData
from driftloop.compression.quantize import quantize_int8
from driftloop.compression.robust_line import fit_line
from driftloop.compression.small_model import train_small_model
from driftloop.compression.steps import run_step
from driftloop.compression.track import Track
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.schemas.recipes import Affine
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, turning_rows

CENTRES = np.random.default_rng(5).normal(size=(4, 4)) * 1.5


def clouds(count: int, seed: int, shares: tuple[float, ...] = (0.25,) * 4) -> Rows:
    """Four classes of normal features around their centres."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, count, p=shares)
    features = (CENTRES[labels] + rng.normal(size=(count, 4))).astype(np.float32)
    return Rows(features, labels.astype(np.int64), np.arange(count))


def lines(count: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    return Rows(features, 100 + 10.0 * features[:, 0] + rng.normal(size=count), np.arange(count))


@pytest.fixture(scope="module")
def turning() -> Workpiece:
    return Workpiece(train_small_model(turning_rows(1000, 1), signature(4, 2)), signature(4, 2), version=1)


@pytest.fixture(scope="module")
def cloudy() -> Workpiece:
    return Workpiece(train_small_model(clouds(2000, 1), signature(4, 4)), signature(4, 4), version=1)


def mapped(piece: Workpiece, rows: Rows, step: Affine | None = None) -> Workpiece:
    data = JobData(rows, rows, None, rows.features)
    return run_step(Affine() if step is None else step, piece, JobContext(data, piece, (), Cpu(), 0, Track(lambda news: None)))


def test_a_concept_that_turned_is_turned_again_from_few_rows(turning: Workpiece) -> None:
    later = turning_rows(2000, 2, turned=True)
    made = mapped(turning, turning_rows(75, 3, turned=True))
    assert turning.results(later).mean() < 0.2
    assert made.results(later).mean() > 0.85
    assert (made.trained_rows, made.version) == (75, None)


def test_an_int8_champion_is_mapped_as_any_other(turning: Workpiece) -> None:
    small = turning.changed(quantize_int8(turning.onnx, turning_rows(200, 4).features, Cpu()).onnx)
    assert mapped(small, turning_rows(225, 3, turned=True)).results(turning_rows(2000, 2, turned=True)).mean() > 0.85


def test_classes_that_are_more_frequent_than_they_were_are_answered_more(cloudy: Workpiece) -> None:
    shares = (0.85, 0.05, 0.05, 0.05)
    later = clouds(4000, 2, shares)
    gains = [
        mapped(cloudy, clouds(225, seed, shares)).results(later).mean() - cloudy.results(later).mean() for seed in range(10, 20)
    ]
    assert np.mean(gains) > 0.005
    assert min(gains) > -0.01


def test_where_nothing_changed_little_is_changed(cloudy: Workpiece) -> None:
    later = clouds(4000, 2)
    losses = [cloudy.results(later).mean() - mapped(cloudy, clouds(225, seed)).results(later).mean() for seed in range(10, 20)]
    assert np.mean(losses) < 0.005
    assert max(losses) < 0.02


def test_classes_that_changed_places_take_all_of_the_matrix(cloudy: Workpiece) -> None:
    after = np.array([2, 0, 3, 1])

    def moved(rows: Rows) -> Rows:
        return Rows(rows.features, after[rows.labels], rows.offsets)

    later = moved(clouds(4000, 2))
    assert cloudy.results(later).mean() < 0.2
    assert mapped(cloudy, moved(clouds(225, 3))).results(later).mean() > 0.8 * cloudy.results(clouds(4000, 2)).mean()


def test_lost_calibration_is_found_again(turning: Workpiece) -> None:
    rng = np.random.default_rng(6)
    true = rng.normal(size=(400, 3)) * 1.5
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    sure = fit_map(true * 4, labels, 1.0)
    assert np.abs(centred(sure.of(true * 4)) - centred(true)).mean() < 0.35
    assert fit_map(true, labels, 1e6).weights == pytest.approx(0.0, abs=1e-3)


def test_few_rows_for_each_number_leave_the_matrix_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    fitted = affine._fitted

    def told(kind: str, *rest: object) -> affine.ScoreMap:
        tried.append(kind)
        return fitted(kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(affine, "_fitted", told)
    rng = np.random.default_rng(7)
    for classes, count, full in ((5, 60, True), (6, 60, False), (20, 300, False)):
        tried.clear()
        fit_map(rng.normal(size=(count, classes)), rng.integers(0, classes, count), 1.0)
        assert ("full" in tried) == full


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 500.0), (3.0, -200.0), (-1.0, 0.0), (1e-3, 1e6)])
def test_numbers_in_another_unit_take_a_line(factor: float, offset: float) -> None:
    piece = Workpiece(train_small_model(lines(1000, 1), signature(4, 0)), signature(4, 0), version=1)
    rows, later = (Rows(part.features, part.labels * factor + offset, part.offsets) for part in (lines(225, 2), lines(2000, 3)))
    rows.labels[::20] += 1e7  # wild labels move a least-squares line
    made = mapped(piece, rows)
    level = -abs(factor) * 1.1 * -piece.results(lines(2000, 3)).mean()
    assert made.results(later).mean() > level - abs(offset) * 1e-6


def test_a_line_of_predictions_that_are_all_the_same_is_a_shift() -> None:
    labels = np.random.default_rng(0).normal(7, 1, 100)
    slope, intercept = fit_line(np.full(100, 3.0), labels, 1.0)
    assert slope == pytest.approx(1.0)
    assert 3 + intercept == pytest.approx(7.0, abs=0.3)
    assert fit_line(labels, labels, 1.0) == pytest.approx((1.0, 0.0), abs=1e-6)


def test_rows_that_the_champion_does_not_answer_are_left_out(turning: Workpiece) -> None:
    rows = turning_rows(225, 3, turned=True)
    rows.features[:50] = np.inf
    made = mapped(turning, rows)
    assert made.trained_rows in (175, 225)
    assert made.results(turning_rows(2000, 2, turned=True)).mean() > 0.85
    rows.features[:] = np.inf
    unsound = ~np.isfinite(turning.runner.scores(rows.features)).all(axis=1)
    if unsound.all():
        with pytest.raises(ArtifactInvalid, match="finite scores"):
            mapped(turning, rows)
