"""Attributes of ai.onnx.ml operators that do not fit the rows that come in are refused by name."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import NodeProto, helper, numpy_helper

from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_checks import FileLimits
from driftloop.compression.onnx_file import load_onnx
from driftloop.compression.runtime import open_session
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.tests.exported import export
from driftloop.tests.onnx_graphs import bytes_of
from driftloop.tests.test_tree_checks import cut, drop, put, set_at

NAN = float("nan")


def spoiled(name: str, operator: str, change: Callable[[NodeProto], None]) -> bytes:
    model = load_onnx(adopt(export(name)).onnx)
    change(next(one for one in model.graph.node if one.op_type == operator))
    return bytes(model.SerializeToString())


def twice(node: NodeProto) -> None:
    node.attribute.append(node.attribute[0])


@pytest.mark.parametrize(
    ("name", "operator", "change", "says"),
    [
        ("sk_logistic", "LinearClassifier", cut("coefficients"), "'coefficients' must have 8 entries, got '7'"),
        ("sk_logistic", "LinearClassifier", put("intercepts", [1.0, 2.0, 3.0]), "'intercepts' must have no or 2 entries"),
        ("sk_logistic", "LinearClassifier", set_at("coefficients", 0, NAN), "'coefficients' must hold finite"),
        ("sk_logistic", "LinearClassifier", drop("classlabels_ints"), "'classlabels_ints' must hold the classes"),
        ("sk_logistic", "LinearClassifier", twice, "must be there once|checker"),
        ("sk_linear", "LinearRegressor", put("targets", 10**9), "'variable' must have at most 20000000 numbers a row"),
        ("sk_linear", "LinearRegressor", put("targets", -3), "'targets' must be 1 to"),
        ("sk_linear", "LinearRegressor", cut("coefficients"), "'coefficients' must have 4 entries"),
        ("sk_linear", "LinearRegressor", put("intercepts", [0.0, 0.0]), "'intercepts' must have no or 1 entries"),
        ("sk_svc_three", "SVMClassifier", set_at("vectors_per_class", 0, -4), "'vectors_per_class' must have 3 counts"),
        ("sk_svc_three", "SVMClassifier", set_at("vectors_per_class", 0, 2**40), "'vectors_per_class' must have 3 counts"),
        ("sk_svc_three", "SVMClassifier", set_at("vectors_per_class", 0, 1), "'support_vectors' must have"),
        ("sk_svc_three", "SVMClassifier", cut("vectors_per_class"), "'vectors_per_class' must have 3 counts"),
        ("sk_svc_three", "SVMClassifier", cut("support_vectors"), "'support_vectors' must have"),
        ("sk_svc_three", "SVMClassifier", cut("coefficients"), "'coefficients' must have"),
        ("sk_svc_three", "SVMClassifier", cut("rho"), "'rho' must have 3 entries"),
        ("sk_svc_three", "SVMClassifier", cut("prob_a"), "'prob_a' must have 3 entries"),
        ("sk_svc_three", "SVMClassifier", put("kernel_type", "MAGIC"), "'kernel_type' must be one of LINEAR"),
        ("sk_svc_three", "SVMClassifier", cut("kernel_params"), "'kernel_params' must have no or 3 entries"),
        ("sk_svr", "SVMRegressor", put("n_supports", 10**7), "'n_supports' must be 0 to"),
        ("sk_svr", "SVMRegressor", put("n_supports", 3), "'support_vectors' must have 12 entries"),
        ("sk_svr", "SVMRegressor", cut("coefficients"), "'coefficients' must have"),
        ("sk_svr", "SVMRegressor", put("one_class", 7), "'one_class' must be 0 or 1"),
        ("sk_scaled", "Scaler", cut("offset"), "'offset' must have 1 or 4 entries, got '3'"),
        ("sk_scaled", "Scaler", set_at("scale", 1, NAN), "'scale' must hold finite"),
        ("sk_scaled", "Imputer", cut("imputed_value_floats"), "'imputed_value_floats' must have 1 or 4"),
        ("sk_binned", "OneHotEncoder", drop("cats_int64s"), "Exactly one of 'cats_"),
        ("sk_binned", "OneHotEncoder", put("zeros", 5), "'zeros' must be 0 or 1"),
        ("sk_binned", "Normalizer", put("norm", "L9"), "'norm' must be one of MAX"),
        ("sk_powers", "Binarizer", put("threshold", NAN), "'threshold' must be finite"),
    ],
)
def test_a_hostile_attribute_is_refused_by_name(name: str, operator: str, change: Callable[[NodeProto], None], says: str) -> None:
    with pytest.raises(ArtifactInvalid, match=says):
        load_onnx(spoiled(name, operator, change))


def of(
    operator: str, outputs: tuple[str, ...] = ("scores",), inputs: tuple[str, ...] = ("features",), **attributes: object
) -> bytes:
    model = bytes_of([helper.make_node("Neg", ["features"], ["scores"])])
    made = load_onnx(model)
    del made.graph.node[:]
    made.graph.node.append(helper.make_node(operator, ["features"], ["scores"], domain="ai.onnx.ml", **attributes))
    made.opset_import.add(domain="ai.onnx.ml", version=4 if operator == "LabelEncoder" else 1)
    return bytes(made.SerializeToString())


def test_gaps_are_keys_and_values_of_encoders_and_what_an_imputer_replaces() -> None:
    encoder = of("LabelEncoder", keys_floats=[NAN, 1.0], values_floats=[0.0, 5.0], default_float=NAN)
    load_onnx(encoder)
    assert open_session(encoder).run(None, {"features": np.array([[NAN, 1, 1, 1]], np.float32)})[0].tolist() == [[0, 5, 5, 5]]
    load_onnx(of("Imputer", imputed_value_floats=[1.0], replaced_value_float=NAN))
    tensors = {part: numpy_helper.from_array(np.array([NAN, 1], np.float32)) for part in ("keys_tensor", "values_tensor")}
    load_onnx(of("LabelEncoder", **tensors, default_tensor=numpy_helper.from_array(np.array([0], np.float32))))


@pytest.mark.parametrize(
    "attributes",
    [
        {"keys_floats": [1.0, 2.0], "values_floats": [1.0]},
        {"keys_floats": [1.0], "keys_int64s": [1], "values_floats": [1.0]},
        {"keys_floats": [1.0]},
        {},
    ],
    ids=["lengths", "two kinds", "no values", "nothing"],
)
def test_keys_and_values_of_an_encoder_are_one_list_each(attributes: dict[str, object]) -> None:
    with pytest.raises(ArtifactInvalid, match=r"'keys' must be one list|shapes|checker"):
        load_onnx(of("LabelEncoder", **attributes))


def test_places_beyond_a_row_are_refused() -> None:
    for places in ([4], [-1], [2**62]):
        with pytest.raises(ArtifactInvalid, match="places must be whole numbers from 0 to 3"):
            load_onnx(with_places(np.array(places, np.int64)))
    load_onnx(with_places(np.array([0, 3], np.int64)))


def with_places(places: np.ndarray) -> bytes:
    model = load_onnx(of("Binarizer"))
    model.graph.initializer.append(numpy_helper.from_array(places, "places"))
    node = helper.make_node("ArrayFeatureExtractor", ["features", "places"], ["scores"], domain="ai.onnx.ml")
    del model.graph.node[:]
    model.graph.node.append(node)
    return bytes(model.SerializeToString())


def test_parts_of_a_vectorizer_are_as_wide_as_they_say() -> None:
    load_onnx(of("FeatureVectorizer", inputdimensions=[4]))
    for sizes in ([5], [4, 4], [-4], [2**62]):
        with pytest.raises(ArtifactInvalid, match=r"'inputdimensions' must|at most 20000000 numbers"):
            load_onnx(of("FeatureVectorizer", inputdimensions=sizes))


def test_steps_of_all_nodes_together_are_bounded() -> None:
    with pytest.raises(ModelUnsupported, match="at most 100 steps a row, got more at SVMRegressor"):
        load_onnx(adopt(export("sk_svr")).onnx, FileLimits(products=100))


def test_an_operator_that_is_not_on_the_list_is_refused() -> None:
    for operator in ("ZipMap", "CastMap", "DictVectorizer", "MadeUp"):
        with pytest.raises(ModelUnsupported, match=f"operator '{operator}' is not handled"):
            load_onnx(of(operator))
