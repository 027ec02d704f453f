"""Inputs of any kind become one matrix: scores stay those of the source, texts by their places; what cannot be read so is refused."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_file import load_onnx, signature_of
from driftloop.compression.runtime import Runner
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.schemas.events import Signature
from driftloop.schemas.feature_row import FeatureRows
from driftloop.streams.publishing import adopted_signature
from driftloop.tests.exported import FOLDER, mixed, mixed_names, mixed_rows
from driftloop.tests.onnx_graphs import model_of


def source(name: str) -> bytes:
    return (FOLDER / f"{name.split('=')[0]}.onnx").read_bytes()


@pytest.mark.parametrize("name", mixed_names())
def test_rows_as_events_carry_them_score_as_the_source_says(name: str) -> None:
    made = adopt(source(name))
    signature = adopted_signature(made, (), ())
    rows = FeatureRows(signature)
    given = mixed_rows(name)
    if made.categories:
        assert set(signature.categories) == {"colour", "size"}
        features = np.array([rows.row(row) for row in given], np.float32)
    else:
        features = np.array([rows.row(list(row.values())) for row in given], np.float32)
    np.testing.assert_allclose(Runner(made.onnx, signature).scores(features), mixed()[name], atol=1e-5)
    assert not adopt(made.onnx).notes


def test_a_text_that_the_model_was_never_shown_is_like_any_other() -> None:
    made = adopt(source("mixed_forest"))
    rows = FeatureRows(adopted_signature(made, (), ()))
    runner = Runner(made.onnx, adopted_signature(made, (), ()))
    asked = [
        {"amount": 1.0, "age": 0.0, "visits": 3, "colour": colour, "size": "small"} for colour in ("grey", "pink", None, "red")
    ]
    grey, pink, none, red = runner.scores(np.array([rows.row(row) for row in asked], np.float32)).tolist()
    assert grey == pink == none != red


def test_names_of_the_user_take_the_place_of_those_of_the_file() -> None:
    signature = adopted_signature(adopt(source("mixed_logistic")), ("a", "b", "c", "d", "e"), (0, 1))
    assert signature.features == ("a", "b", "c", "d", "e")
    assert signature.categories == {"d": ("blue", "green", "red"), "e": ("large", "small")}


def test_an_operator_that_reads_a_text_is_named() -> None:
    model = onnx.load_model_from_string(source("mixed_logistic"))
    model.graph.node.insert(0, helper.make_node("StringNormalizer", ["colour"], ["lower"], case_change_action="LOWER"))
    next(node for node in model.graph.node if node.op_type == "OneHotEncoder").input[0] = "lower"
    with pytest.raises(ModelUnsupported, match="StringNormalizer node 'lower' reads the text of input 'colour'"):
        adopt(model.SerializeToString())


def several(kinds: list[int], shapes: list[list[int | str]]) -> ModelProto:
    model = model_of([helper.make_node("Neg", ["features"], ["scores"])])
    del model.graph.input[:]
    del model.graph.node[:]
    for at, (kind, shape) in enumerate(zip(kinds, shapes, strict=True)):
        model.graph.input.append(helper.make_tensor_value_info(f"in{at}", kind, shape))
        model.graph.node.append(helper.make_node("Cast", [f"in{at}"], [f"c{at}"], to=TensorProto.FLOAT))
        if len(shape) == 1:
            model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1]), "column"))
            model.graph.node.append(helper.make_node("Reshape", [f"c{at}", "column"], [f"r{at}"]))
    parts = [f"c{at}" if len(shape) > 1 else f"r{at}" for at, shape in enumerate(shapes)]
    model.graph.node.append(helper.make_node("Concat", parts, ["scores"], axis=1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", None]))
    return model


def test_columns_of_every_kind_and_form_come_in_order() -> None:
    kinds = [TensorProto.DOUBLE, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT]
    made = adopt(several(kinds, [["n", 1], ["n"], ["n", 1], ["n", 2], ["n", 1]]).SerializeToString())
    assert made.features == ("in0", "in1", "in2", "in3_0", "in3_1", "in4")
    signature = Signature(task="classification", features=made.features, classes=(0, 1, 2, 3, 4, 5))
    rows = np.array([[0.5, 3, 1, 0.25, -2, 7], [1.5, -4, 0, 1, 2, np.nan]], np.float32)
    np.testing.assert_array_equal(Runner(made.onnx, signature).scores(rows), rows)


@pytest.mark.parametrize(
    ("kinds", "shapes", "says"),
    [
        ([TensorProto.FLOAT, TensorProto.FLOAT], [["n", 1], ["n", "k"]], "'in1' must be a batch of rows of fixed shape"),
        ([TensorProto.COMPLEX64], [["n", 2]], "'in0' must hold numbers or texts, got ONNX type 14"),
        ([TensorProto.FLOAT, TensorProto.FLOAT], [["n", 1], ["n", 2**40]], "at most 200000 numbers a row"),
        ([TensorProto.FLOAT, TensorProto.FLOAT], [["n", 1], ["n", 1, 1, 1, 1, 1, 1, 1, 1]], "of fixed shape"),
    ],
)
def test_inputs_that_are_no_columns_are_refused(kinds: list[int], shapes: list[list[int | str]], says: str) -> None:
    with pytest.raises(ArtifactInvalid, match=says):
        adopt(several(kinds, shapes).SerializeToString())


def test_texts_in_constants_are_checked() -> None:
    model = model_of([helper.make_node("Neg", ["features"], ["scores"])])
    tensor = helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"])
    model.graph.initializer.append(tensor)
    load_onnx(model.SerializeToString())
    model.graph.initializer[0].dims[:] = [3]
    with pytest.raises(ArtifactInvalid, match="must hold the 3 texts of its shape, got 2"):
        load_onnx(model.SerializeToString())
    model.graph.initializer[0].dims[:] = [2]
    model.graph.initializer[0].string_data[0] = b"\xff"
    with pytest.raises(ArtifactInvalid, match="must hold text in UTF-8"):
        load_onnx(model.SerializeToString())


def test_what_a_matrix_is_made_for_is_told() -> None:
    notes = adopt(source("mixed_number")).notes
    assert notes == ("the input is one matrix 'features' of 5 numbers, in place of 'amount', 'age', 'visits', 'colour', 'size'",)
    assert signature_of(adopt(source("whole_lgb")).onnx).input_name == "input_numbers"
