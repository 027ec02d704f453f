"""Foreign models are opened in a child: what kills, fills or holds it is a refusal with its reason, and this process goes on."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from driftloop.schemas.config import ModelsConfig
from driftloop.schemas.errors import ArtifactInvalid, Conflict, ModelUnsupported
from driftloop.streams import model_trial
from driftloop.streams.child_process import Ended
from driftloop.streams.model_trial import main, tried
from driftloop.tests.onnx_graphs import bytes_of, model_of, signature, sound_model

CONFIG = ModelsConfig()


def hidden(nodes: list[object], tensors: dict[str, np.ndarray]) -> bytes:
    """Behind a shape that only running tells, no check of shapes sees what a graph grows to."""
    begin = [helper.make_node("Cast", ["numbers"], ["sizes"], to=7), helper.make_node("Reshape", ["features", "sizes"], ["x"])]
    model = model_of([helper.make_node("Neg", ["features"], ["scores"])])
    held = bytes_of([*begin, helper.make_node("Neg", ["x"], ["scores"])], tensors | {"numbers": np.array([-1, 4], np.float32)})
    model.ParseFromString(held)
    del model.graph.node[-1]
    model.graph.node.extend(nodes)  # type: ignore[arg-type]
    return model.SerializeToString()


def doubled(times: int) -> bytes:
    names = ["x", *(f"d{at}" for at in range(times))]
    grown = [helper.make_node("Concat", [name, name], [after], axis=0) for name, after in itertools.pairwise(names)]
    end = [helper.make_node("ReduceMean", [names[-1], "axis"], ["r"]), helper.make_node("Add", ["features", "r"], ["scores"])]
    return hidden([*grown, *end], {"axis": np.array([0], np.int64)})


def test_a_sound_model_is_seen_once_for_all_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound_model().SerializeToString()
    seen = tried(data, CONFIG, signature(4, 3))
    assert [(one.name, one.rows, one.numbers, one.finite) for one in seen.outputs] == [("scores", (1, 11), (3, 33), True)]
    monkeypatch.setattr(model_trial, "ChildProcess", None)
    with pytest.raises(ArtifactInvalid, match="2 columns, got 3"):
        tried(data, CONFIG, signature(4, 2))


def test_what_the_child_refuses_is_refused_here_of_the_same_kind() -> None:
    model = sound_model()
    model.graph.node[1].op_type = "Loop"
    with pytest.raises(ModelUnsupported, match="Loop"):
        tried(model.SerializeToString(), CONFIG)
    with pytest.raises(ArtifactInvalid, match="ONNX"):
        tried(b"garbage", CONFIG)


def test_a_graph_that_outgrows_the_memory_is_refused() -> None:
    with pytest.raises(ArtifactInvalid, match=r"batch of 1 rows|memory|longer"):
        tried(doubled(28), CONFIG)


def test_a_graph_that_never_comes_back_is_refused() -> None:
    squares = [helper.make_node("MatMul", ["wide", "tall"], ["m0"])]
    squares += [helper.make_node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"]) for at in range(200)]
    end = [
        helper.make_node("ReduceMean", ["m200", "both"], ["r"], keepdims=0),
        helper.make_node("Add", ["features", "r"], ["scores"]),
    ]
    start = [helper.make_node("Reshape", ["flat", "sizes1"], ["wide"]), helper.make_node("Cast", ["tallnumbers"], ["sizes1"], to=7)]
    tensors = {
        "flat": np.ones(4000, np.float32),
        "tallnumbers": np.array([-1, 1], np.float32),
        "tall": np.ones((1, 4000), np.float32),
        "both": np.array([0, 1], np.int64),
    }
    data = hidden([*start[::-1], *squares, *end], tensors)
    with pytest.raises(ArtifactInvalid, match="longer than 3 s"):
        tried(data, ModelsConfig(trial_timeout_s=3.0))


def test_weights_that_make_no_number_are_refused() -> None:
    nodes = [helper.make_node("Sub", ["i", "i"], ["n"]), helper.make_node("Add", ["features", "n"], ["scores"])]
    with pytest.raises(ArtifactInvalid, match="finite"):
        tried(bytes_of(nodes, {"i": np.full(4, np.inf, np.float32)}), CONFIG, signature(4, 4))


def test_a_crash_is_told_as_a_reason(tmp_path: Path) -> None:
    refused, certain = model_trial._answer(tmp_path, Ended("killed", -11, ""), CONFIG)
    assert "signal 11" in str(refused)
    assert not certain
    forged = model_trial._answer(tmp_path, Ended("failed", 1, "a\nTraceback\x1b[31m"), CONFIG)[0]
    assert str(forged).isprintable()


def test_where_no_child_can_be_started_nothing_is_said_of_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = bytes_of([helper.make_node("Abs", ["features"], ["scores"])])
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        with pytest.raises(Conflict, match="TMPDIR"):
            tried(data, CONFIG)
    assert tried(data, CONFIG).outputs[0].finite


def test_the_child_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
