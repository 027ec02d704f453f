"""A job goes through a folder and a child process and comes back judged, the same each time, or with its cause."""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_folder import read_error, read_job, read_outcome, write_error, write_job
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.small_model import train_small_model
from driftloop.compression.store import digest_of
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import ArtifactInvalid, JobError, NotFound
from driftloop.schemas.events import RowRange
from driftloop.schemas.recipe_reading import recipe_of
from driftloop.schemas.recipes import BUILT_IN
from driftloop.schemas.rows import Rows
from driftloop.tests.onnx_graphs import signature, turning_rows

CONFIG = RepairConfig(seed=3)
RANGE = RowRange(partition=1, start_offset=10, labels_start_offset=20)


@pytest.fixture(scope="module")
def champion() -> ModelVersion:
    onnx = train_small_model(turning_rows(1000, 1), signature(4, 2))
    return ModelVersion(1, digest_of(onnx), onnx)


def job(champion: ModelVersion, recipe: str = "repair", rows: Rows | None = None) -> Job:
    new = turning_rows(300, 2, turned=True) if rows is None else rows
    return Job("job", "model", BUILT_IN[recipe], champion, signature(4, 2), new, turning_rows(200, 3), row_range=RANGE)


def run_child(folder: Path) -> "subprocess.CompletedProcess[str]":
    order = [sys.executable, "-W", "error", "-m", "driftloop.streams.job_child", str(folder)]
    return subprocess.run(order, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_a_job_comes_back_judged_and_the_same_as_in_process(tmp_path: Path, champion: ModelVersion) -> None:
    write_job(tmp_path, job(champion), CONFIG)
    done = run_child(tmp_path)
    assert done.returncode == 0, done.stderr
    news = [json.loads(line) for line in done.stdout.splitlines()]
    chosen = read_outcome(tmp_path).arm
    assert [step for step, _ in groupby(one["step"] for one in news)] == [
        *("load", "recall", "affine", "correct", "refit", "finetune", "finetune_old", "scratch", chosen, "gate", "done")
    ]
    fractions = [one["fraction"] for one in news]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    curve = [one for one in news if "loss" in one.get("scalars", {})]
    assert {one["step"] for one in curve} <= {chosen}, "what is trained for the choice alone tells no curve"
    held = [one["scalars"]["holdout_metric"] for one in news if "holdout_metric" in one.get("scalars", {})]
    assert held == [arm.metric for arm in read_outcome(tmp_path).arms]
    assert [one["at"] for one in curve] == sorted({one["at"] for one in curve})
    falling = [(one["scalars"]["loss"], one["scalars"]["learning_rate"]) for one in curve]
    assert falling == [] or falling[0] > falling[-1]
    outcome = read_outcome(tmp_path)
    assert outcome.verdict.promoted
    manifest = outcome.manifest
    assert manifest is not None
    assert (manifest.parent_digest, manifest.seed, manifest.rows) == (champion.digest, 3, RANGE)
    assert (manifest.trained_rows, manifest.holdout_rows) == (225, 75)
    assert {"torch", "onnxruntime"} <= set(manifest.packages)
    again = Optimizer(CONFIG, iter(np.arange(1e6)).__next__).run(job(champion), lambda news: None)
    assert again.manifest is not None
    assert again.manifest.digest == manifest.digest
    assert again.manifest.rows_digest == manifest.rows_digest


def test_int8_needs_no_torch(tmp_path: Path, champion: ModelVersion) -> None:
    write_job(tmp_path, job(champion, "int8", turning_rows(1000, 4)), CONFIG)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from driftloop.streams.job_child import main\n"
        f"sys.exit(main([{str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    outcome = read_outcome(tmp_path)
    assert outcome.arm == "int8"
    assert outcome.verdict.size_bytes < outcome.verdict.champion_size_bytes
    assert outcome.manifest is not None
    assert outcome.manifest.calibration
    assert recipe_of(outcome.manifest.recipe, outcome.manifest.definition or {}) == BUILT_IN["int8"]


def test_a_bad_job_leaves_its_cause(tmp_path: Path, champion: ModelVersion) -> None:
    write_job(tmp_path, job(champion), CONFIG)
    file = tmp_path / "job.json"
    file.write_text(file.read_text().replace('"type":"reset"', '"type":"alchemy"'))
    done = run_child(tmp_path)
    problem = read_error(tmp_path)
    assert done.returncode == 1
    assert problem is not None
    assert (problem.kind, "alchemy" in str(problem)) == ("error", True)
    assert run_child(tmp_path / "nowhere").returncode == 2


def test_the_folder_gives_back_the_job(tmp_path: Path, champion: ModelVersion) -> None:
    rows = turning_rows(20, 5)
    rows = Rows(rows.features, rows.labels, rows.offsets, ("a", None) * 10)
    write_job(tmp_path, job(champion, rows=rows), CONFIG)
    back, config = read_job(tmp_path)
    assert config == CONFIG
    assert (back.champion, back.signature, back.row_range, back.rows.segments) == (champion, signature(4, 2), RANGE, rows.segments)
    assert np.array_equal(back.rows.features, rows.features)
    assert back.rows.labels.dtype == np.int64


def test_damaged_folders_are_refused(tmp_path: Path, champion: ModelVersion) -> None:
    with pytest.raises(NotFound):
        read_job(tmp_path)
    write_job(tmp_path, job(champion), CONFIG)
    model = tmp_path / f"{champion.digest}.onnx"
    model.write_bytes(b"other")
    with pytest.raises(ArtifactInvalid, match="digest"):
        read_job(tmp_path)
    model.write_bytes(champion.onnx)
    np.savez(tmp_path / "rows.npz", features=np.array([{}], dtype=object), labels=np.zeros(1), offsets=np.zeros(1))
    with pytest.raises(JobError, match="rows"):
        read_job(tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(JobError, match="readable"):
        read_job(tmp_path)


def test_a_failed_allocation_is_told_from_other_causes(tmp_path: Path) -> None:
    write_error(tmp_path, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert read_error(tmp_path).kind == "memory"  # type: ignore[union-attr]
    write_error(tmp_path, ValueError("no"))
    assert str(read_error(tmp_path)) == "ValueError: no"


def test_labels_outside_the_classes_are_an_error(champion: ModelVersion) -> None:
    rows = turning_rows(300, 5)
    rows.labels[0] = 7
    with pytest.raises(JobError, match="class indices"):
        Optimizer(CONFIG, iter(np.arange(1e6)).__next__).run(job(champion, rows=rows), lambda news: None)
