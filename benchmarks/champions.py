"""Champions for `repair.py`: the demo's kind of network, and LightGBM's trees as onnxmltools exports them."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from environments import Unavailable, lightgbm_python

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import signature_of
from driftloop.compression.small_model import SmallModelConfig, train_small_model
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.events import Signature
from driftloop.schemas.rows import Rows

TRAINER = Path(__file__).resolve().parent / "peer_lightgbm.py"


class Maker(Protocol):
    """What trains models of one kind."""

    def train(self, rows: Rows, classes: int, seed: int) -> Workpiece:
        """Return a model trained on `rows`; no classes: a number."""
        ...


class Nets:
    """Two hidden layers of 128, trained by torch."""

    def train(self, rows: Rows, classes: int, seed: int) -> Workpiece:
        signature = signature_for(rows, classes)
        return Workpiece(train_small_model(rows, signature, SmallModelConfig(seed=seed)), signature)


class Trees:
    """80 rounds of 31 leaves, trained by LightGBM in a process of an interpreter that has it; raises Unavailable."""

    def __init__(self, python: str | None) -> None:
        chosen = lightgbm_python() if python is None else python
        self._folder = tempfile.TemporaryDirectory(prefix="driftloop-trees-")
        try:
            self._process = subprocess.Popen(
                [chosen, str(TRAINER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError as problem:
            raise Unavailable(f"{chosen} must run, got {problem.strerror}") from problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def train(self, rows: Rows, classes: int, seed: int) -> Workpiece:
        source, target = (Path(self._folder.name) / name for name in ("rows.npz", "model.onnx"))
        np.savez(source, features=rows.features, labels=rows.labels)
        if self._process.stdin is None or self._process.stdout is None:
            raise Unavailable("the trainer's pipes must be open")
        try:
            self._process.stdin.write(f"{source} {target}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Unavailable("lightgbm and onnxmltools must be importable, got an end of the trainer") from None
        answer = self._process.stdout.readline()
        if answer != "\n":
            raise Unavailable(f"lightgbm must train and onnxmltools export, got {answer.strip() or 'an end of the trainer'}")
        data = adopt(target.read_bytes()).onnx
        return Workpiece(data, signature_for(rows, classes, signature_of(data).scores_name))


def signature_for(rows: Rows, classes: int, output_name: str = "scores") -> Signature:
    """Return the signature of a model of these rows."""
    task = "classification" if classes else "regression"
    names = tuple(f"x{index}" for index in range(rows.features.shape[1]))
    return Signature(task=task, features=names, classes=tuple(range(classes)), input_name="features", output_name=output_name)
