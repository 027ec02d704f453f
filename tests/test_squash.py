"""Logits are told from chances, and get the activation that they lack where the user asks for it."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import signature_of
from driftloop.compression.runtime import open_session
from driftloop.compression.seen import Adoption
from driftloop.compression.squash import are_chances
from driftloop.compression.trial import try_model
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.tests.exported import export
from driftloop.tests.onnx_graphs import sound_model


def logits() -> ModelProto:
    """The sound model without its Softmax."""
    model = sound_model()
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "scores"
    return model


def test_a_softmax_behind_logits_gives_what_the_net_with_one_gives() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    made = adopt(logits().SerializeToString(), Adoption("softmax"))
    assert made.notes == ("a Softmax is put behind output 'scores'",)
    scores, wanted = (
        open_session(data).run(["scores"], {"features": rows})[0] for data in (made.onnx, sound_model().SerializeToString())
    )
    np.testing.assert_allclose(scores, wanted, atol=1e-7)


def test_a_sigmoid_behind_one_number_makes_it_the_second_class() -> None:
    data = export("xgb_number")
    assert not signature_of(adopt(data).onnx).outputs[0].sigmoid
    assert signature_of(adopt(data, Adoption("sigmoid")).onnx).outputs[0].sigmoid


def test_what_is_squashed_is_not_squashed_again() -> None:
    with pytest.raises(ArtifactInvalid, match="must be no chances yet to be squashed, got those of a Softmax"):
        adopt(sound_model().SerializeToString(), Adoption("softmax"))


def test_the_raw_scores_take_no_name_that_is_there() -> None:
    model = logits()
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "scores_raw"
    taken = onnx.load_model_from_string(adopt(model.SerializeToString(), Adoption("softmax")).onnx)
    assert taken.graph.node[-1].input[0] == "scores_raw1"


def test_a_trial_says_whether_scores_are_chances() -> None:
    assert try_model(sound_model().SerializeToString()).outputs[0].chances
    assert not try_model(logits().SerializeToString()).outputs[0].chances
    assert not try_model(adopt(export("xgb_number")).onnx).outputs[0].chances


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[0.2, 0.8]], True),
        ([[0.2, 0.7]], False),
        ([[-0.2, 1.2]], False),
        ([[0.4]], True),
        ([[1.4]], False),
        ([[float("nan"), 0.5], [0.5, 0.5]], True),
    ],
)
def test_chances_lie_between_0_and_1_and_sum_to_1(rows: list[list[float]], wanted: bool) -> None:
    assert are_chances([np.array(rows)]) == wanted
