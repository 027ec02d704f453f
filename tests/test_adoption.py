"""What exporters write is adopted: every tabular export opens, and its scores are those of its source."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import load_onnx, signature_of
from driftloop.compression.runtime import Runner, open_session
from driftloop.compression.seen import Adopted, check_seen
from driftloop.compression.trial import try_model
from driftloop.schemas.errors import ArtifactInvalid, Conflict, ModelUnsupported
from driftloop.tests.exported import FOLDER, classes_of, expected, export, names, nets, signature_for
from driftloop.tests.onnx_graphs import sound_model

EXPORTS = names()


def test_there_are_exports_of_many_exporters() -> None:
    assert len(EXPORTS) >= 40
    assert {name.split("_")[0].split(".")[0] for name in EXPORTS} == {"sk", "lgb", "xgb", "cat"}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_adopted_and_scores_as_its_source(name: str) -> None:
    made = adopt(export(name))
    seen = try_model(made.onnx)
    graph = seen.graph
    signature = signature_for(name, graph.input_name, graph.scores_name)
    check_seen(seen, signature)
    scores = Runner(made.onnx, signature).scores(expected()["rows"].astype(np.float32))
    np.testing.assert_allclose(scores, expected()[name], atol=1e-5)
    assert made.classes == classes_of(name)
    assert adopt(made.onnx).onnx == made.onnx
    assert not adopt(made.onnx).notes


NETS = sorted(name for name in nets() if "=" not in name)
REFUSED_NETS = {"torch_image_one": "must run on any number of rows, export it with a dynamic batch"}


@pytest.mark.parametrize("name", NETS)
def test_a_network_as_torch_exports_it_scores_as_torch_says(name: str) -> None:
    data = (FOLDER / f"{name}.onnx").read_bytes()
    if name in REFUSED_NETS:
        with pytest.raises(ArtifactInvalid, match=REFUSED_NETS[name]):
            adopt(data)
        return
    made, rows = adopt(data), nets()[name]
    graph = try_model(made.onnx).graph
    feed = {graph.input_name: rows.reshape(len(rows), *graph.input_shape)}
    scores = open_session(made.onnx).run([graph.scores_name], feed)[0]
    np.testing.assert_allclose(scores.reshape(len(rows), -1), nets()[f"{name}="], atol=1e-5)


def test_what_is_changed_is_told() -> None:
    notes = adopt(export("lgb_words")).notes
    assert len(notes) == 3
    assert "ZipMap is taken out: output 'probabilities' is the matrix" in notes[0]
    assert notes[1] == "outputs that hold no scores are left out: 'label'"
    assert notes[2] == "operator set 8 is lifted to 18"
    assert adopt(export("cat")).notes[-1] == "operator set 18 of ai.onnx is named beside ai.onnx.ml"


def test_a_file_that_can_be_served_is_left_as_it_is() -> None:
    data = sound_model().SerializeToString()
    assert adopt(data) == Adopted(data)


def test_outputs_of_a_net_stay() -> None:
    model = sound_model()
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    data = model.SerializeToString()
    assert adopt(data).onnx == data


def test_the_nodes_behind_a_label_alone_go_with_it() -> None:
    model = load_onnx(adopt(export("sk_bagging")).onnx)
    assert "ArgMax" not in {node.op_type for node in model.graph.node}
    assert [value.name for value in model.graph.output] == ["output_probability"]


def test_a_set_that_is_too_old_or_too_new_is_refused() -> None:
    model = onnx.load_model_from_string(export("lgb"))
    for version, says in ((5, "must be 13 to 23, got 5"), (99, "must be 13 to 23, got 99")):
        next(entry for entry in model.opset_import if not entry.domain).version = version
        with pytest.raises(ModelUnsupported, match=says):
            adopt(model.SerializeToString())


def test_a_map_without_its_classes_is_refused() -> None:
    model = onnx.load_model_from_string(export("cat"))
    del model.graph.node[-1].attribute[:]
    with pytest.raises(ArtifactInvalid, match="must name its classes"):
        adopt(model.SerializeToString())


def test_a_map_that_others_read_is_refused() -> None:
    model = onnx.load_model_from_string(export("cat"))
    model.graph.node.append(helper.make_node("ZipMap", ["probabilities", "x"], ["y"], domain="ai.onnx.ml"))
    with pytest.raises(ArtifactInvalid, match="one input and one output"):
        adopt(model.SerializeToString())


def test_one_number_of_a_logistic_ensemble_is_the_second_class() -> None:
    model = onnx.load_model_from_string(adopt(export("xgb_number")).onnx)
    node = model.graph.node[0]
    next(one for one in node.attribute if one.name == "post_transform").s = b"LOGISTIC"
    graph = signature_of(model.SerializeToString())
    assert graph.outputs[0].sigmoid
    assert not signature_of(adopt(export("xgb_number")).onnx).outputs[0].sigmoid


def test_classes_are_those_of_the_file_but_places_may_be_named() -> None:
    named = Adopted(b"", (), ("no", "yes"))
    named.check_classes(("no", "yes"))
    for other in (("yes", "no"), (0, 1), ("no", "yes", "maybe")):
        with pytest.raises(Conflict, match="must be those that the model file names, 'no,yes'"):
            named.check_classes(other)
    Adopted(b"", (), (0, 1)).check_classes(("no", "yes"))
    with pytest.raises(Conflict):
        Adopted(b"", (), (1, 2)).check_classes(("no", "yes"))
