"""A model as serving runs it: scores for each class, whatever the graph gives them as."""

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.importer import import_onnx
from driftloop.compression.runtime import Runner, outcomes
from driftloop.compression.track import Track
from driftloop.compression.trainer import Examples, Training, train
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.schemas.recipes import Finetune
from driftloop.tests.onnx_graphs import bytes_of, signature, turning_rows


def one_sigmoid(*tail: object) -> bytes:
    rng = np.random.default_rng(0)
    tensors = {
        "w0": rng.normal(size=(4, 16)).astype(np.float32),
        "b0": np.zeros(16, np.float32),
        "w1": rng.normal(size=(16, 1)).astype(np.float32),
        "b1": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w0", "b0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w1", "b1"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p" if tail else "scores"]),
        *tail,
    ]
    return bytes_of(nodes, tensors)  # type: ignore[arg-type]


def test_one_sigmoid_gives_a_score_for_both_classes() -> None:
    scores = Runner(one_sigmoid(), signature(4, 2)).scores(turning_rows(50, 0).features)
    assert scores.shape == (50, 2)
    assert np.allclose(scores.sum(axis=1), 1)
    assert 0 < (scores[:, 1] > 0.5).sum() < 50


@pytest.mark.parametrize("tail", [(), (helper.make_node("Identity", ["p"], ["scores"]),)])
def test_one_sigmoid_is_trained_from_its_logit(tail: tuple[object, ...]) -> None:
    rows = turning_rows(1200, 1)
    imported = import_onnx(one_sigmoid(*tail))
    assert imported.squash == "Sigmoid"
    loss = train(imported, Examples.of(rows), Training(Finetune(learning_rate=1e-2), "classification", 0, Track(lambda news: None)))
    assert loss < 0.45
    import torch

    p = imported.module(torch.from_numpy(rows.features)).detach().numpy()
    assert outcomes(np.concatenate([1 - p, p], axis=1), rows, "classification").mean() > 0.8


def test_rows_that_do_not_come_out_as_they_went_in_are_refused() -> None:
    # Behind a shape that only running tells, the graph itself does not say so.
    nodes = [
        helper.make_node("Cast", ["numbers"], ["sizes"], to=7),
        helper.make_node("Reshape", ["features", "sizes"], ["x"]),
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=0),
        helper.make_node("Add", ["twice", "zero"], ["scores"]),
    ]
    data = bytes_of(nodes, {"numbers": np.array([-1, 4], np.float32), "zero": np.zeros(4, np.float32)})
    with pytest.raises(ArtifactInvalid, match="4 columns, got 8"):
        Runner(data, signature(4, 4)).run(np.ones((3, 4), np.float32))
