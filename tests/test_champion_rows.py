"""The champion beside labelled rows: gaps it cannot answer, chance level, the order of its classes; and no scale of an int8 file is NaN."""

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.champion_rows import answered, better_order, level_notes
from driftloop.compression.cpu import Cpu
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.quantize import quantize_int8
from driftloop.compression.runtime import Runner
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import ArtifactInvalid, JobError
from driftloop.schemas.events import Signature
from driftloop.schemas.recipes import BUILT_IN
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import bytes_of, signature

RANDOM = np.random.default_rng(13)
WEIGHTS = {"w": RANDOM.normal(size=(4, 3)).astype(np.float32)}
MODEL = bytes_of([helper.make_node("MatMul", ["features", "w"], ["a"]), helper.make_node("Softmax", ["a"], ["scores"])], WEIGHTS)


def rows(labels: np.ndarray, gaps: int = 0) -> Rows:
    features = np.zeros((len(labels), 4), np.float32)
    features[:] = RANDOM.normal(size=features.shape)
    features[:gaps, 1] = np.nan
    return Rows(features, labels, np.arange(len(labels), dtype=np.int64))


def one_hot(answers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


def test_another_order_of_the_classes_is_found() -> None:
    labels = RANDOM.integers(0, 3, 900)
    turned = np.array([1, 0, 2])[labels]
    assert better_order(turned, labels, ("maybe", "no", "yes")) == ("no", "maybe", "yes")
    assert better_order(labels, labels, ("maybe", "no", "yes")) is None
    assert better_order(RANDOM.integers(0, 3, 900), labels, (0, 1, 2)) is None
    assert better_order(np.zeros(900, np.int64), labels, (0, 1, 2)) is None
    (note,) = level_notes(
        one_hot(np.array([1, 2, 0])[labels], 3), rows(labels), Signature(task="classification", features=(), classes=(0, 1, 2))
    )[1:]
    assert "--classes 2,0,1" in note


def test_chance_level_is_told() -> None:
    kinds = Signature(task="classification", features=(), classes=(0, 1))
    labels = np.array([0] * 300 + [1] * 100)
    (note,) = level_notes(one_hot(np.zeros(400, np.int64), 2), rows(labels), kinds)
    assert note == "the model is at chance level: right on 75.0% of the rows, the most frequent class has 75.0%"
    assert level_notes(one_hot(labels, 2), rows(labels), kinds) == []
    prices = Signature(task="regression", features=())
    numbers = RANDOM.normal(10, 2, 400)
    assert "chance level" in level_notes(np.full((400, 1), 10, np.float32), rows(numbers), prices)[0]
    assert level_notes(numbers[:, None].astype(np.float32), rows(numbers), prices) == []


def job(data: Rows) -> Job:
    return Job("j", "m", BUILT_IN["int8"], ModelVersion(1, "d", MODEL), signature(4, 3), data)


def test_rows_that_the_champion_cannot_answer_are_left_out_and_told() -> None:
    features = RANDOM.normal(size=(800, 4)).astype(np.float32)
    labels = Runner(MODEL, signature(4, 3)).scores(features).argmax(axis=1).astype(np.int64)
    whole = Rows(features, labels, np.arange(800, dtype=np.int64))
    gaps = Rows(np.where(RANDOM.random(features.shape) < 0.02, np.nan, features).astype(np.float32), labels, whole.offsets)
    known = answered(Runner(MODEL, signature(4, 3)), gaps, signature(4, 3))
    lost = int(np.isnan(gaps.features).any(axis=1).sum())
    assert len(known.rows) == 800 - lost
    assert known.notes[0].startswith(
        f"{lost} of 800 rows are left out: the model's scores are not finite on them ({lost} have missing"
    )
    optimizer = Optimizer(RepairConfig(), iter(range(10**9)).__next__)
    verdict = optimizer.run(job(gaps), lambda news: None).verdict
    assert verdict.champion == 1.0
    assert abs(verdict.difference) < 0.02
    assert verdict.churn < 0.02
    assert verdict.notes[0] == known.notes[0]
    empty = Rows(np.where(np.arange(800)[:, None] < 750, np.nan, features).astype(np.float32), labels, whole.offsets)
    with pytest.raises(JobError, match=r"rows must be at least 61 for recipe int8, got 50 .*not finite"):
        optimizer.run(job(empty), lambda news: None)


def test_no_file_with_a_scale_that_is_no_number_is_made() -> None:
    features = RANDOM.normal(size=(100, 4)).astype(np.float32)
    features[:] = np.nan
    with pytest.raises(ArtifactInvalid, match=r"positive number, got nan|quantizable"):
        quantize_int8(MODEL, features, Cpu())
