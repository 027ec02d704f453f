"""What a graph costs is known without running it: products, sizes, and what grows faster than the rows."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from driftloop.compression.graph_cost import check_cost, shapes_at
from driftloop.compression.onnx_checks import LIMITS
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.tests.onnx_graphs import model_of, sound_model


def test_shapes_follow_from_the_rows() -> None:
    shapes = shapes_at(sound_model(), 5)
    assert (shapes["a"], shapes["scores"], shapes["w0"]) == ((5, 8), (5, 3), (8, 4))


def test_products_of_all_layers_are_bounded() -> None:
    model = sound_model()
    # 8 x 4 and 8 x 3 of the layers, and a few of the others for each row.
    check_cost(model, replace(LIMITS, products=200))
    with pytest.raises(ModelUnsupported, match="products a row"):
        check_cost(model, replace(LIMITS, products=50))


def test_a_value_that_is_too_wide_is_named() -> None:
    with pytest.raises(ArtifactInvalid, match=r"'a' must have at most 7 numbers a row, got 8"):
        check_cost(sound_model(), replace(LIMITS, value_elements=7))


def test_what_grows_faster_than_the_rows_is_refused() -> None:
    nodes = [
        helper.make_node("Transpose", ["features"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["features", "turned"], ["square"]),
        helper.make_node("ReduceSum", ["square", "axes"], ["scores"], keepdims=1),
    ]
    with pytest.raises(ModelUnsupported, match="grow no faster than the rows"):
        check_cost(model_of(nodes, {"axes": np.array([1])}), LIMITS)
