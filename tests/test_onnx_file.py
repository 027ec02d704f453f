"""Hostile model files are refused with their reason; sound ones are cleaned the same way every time."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from driftloop.compression.graph_signature import check_signature
from driftloop.compression.onnx_checks import FileLimits
from driftloop.compression.onnx_file import clean, lift_constants, load_onnx, signature_of
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.tests.onnx_graphs import bytes_of, model_of, signature, sound_model


def external_data(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_constant(model: ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "inner")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["x"], value=tensor))


def unknown_op(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Loop"


def made_up_op(model: ModelProto) -> None:
    model.graph.node[1].op_type = "RunShell"


def node_domain(model: ModelProto) -> None:
    model.graph.node[1].domain = "evil"


def function(model: ModelProto) -> None:
    model.functions.add(name="f", domain="evil")


def subgraph(model: ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("body", model.graph))


def huge_dims(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]


def negative_dims(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-8, -4]


def short_data(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0" * 8


def text_tensor(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.STRING


def many_nodes(model: ModelProto) -> None:
    for index in range(3_000):
        model.graph.node.append(helper.make_node("Relu", ["scores"], [f"n{index}"]))


def doubling(model: ModelProto) -> None:
    last = "b"
    for index in range(40):
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"d{index}"], axis=1))
        last = f"d{index}"


def no_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


def no_input(model: ModelProto) -> None:
    del model.graph.input[:]


def second_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 4]))


def text_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def fixed_batch(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def open_features(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "k"


def no_output(model: ModelProto) -> None:
    del model.graph.output[:]


def old_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 9


def no_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def dangling(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "scores"


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


def wrong_shapes(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].i = 0


def axis_beyond_all(model: ModelProto) -> None:
    """Shape inference of onnx 1.23.2 ends the process with signal 11 on this."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), "s"))
    node = helper.make_node("LayerNormalization", ["b", "s"], ["n", "mean"], axis=2147483648)
    model.graph.node.insert(2, node)


def empty_bias(model: ModelProto) -> None:
    """Making a session of this ends the process with signal 11 in onnxruntime 1.31.1."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), "s"))
    model.graph.node.insert(2, helper.make_node("LayerNormalization", ["b", "s", ""], ["n"]))


def growing_batch(model: ModelProto) -> None:
    last = "features"
    for index in range(27):
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"d{index}"], axis=0))
        last = f"d{index}"


def doubled_constants(model: ModelProto) -> None:
    """A session that folds these took 880 MB."""
    last = "b0"
    for index in range(22):
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"d{index}"], axis=0))
        last = f"d{index}"


def rows_by_rows(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Transpose", ["features"], ["t"]))
    model.graph.node.append(helper.make_node("MatMul", ["features", "t"], ["square"]))


def folded_for_minutes(model: ModelProto) -> None:
    for name, shape in (("tall", (4000, 1)), ("wide", (1, 4000))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.node.append(helper.make_node("MatMul", ["tall", "wide"], ["m0"]))
    for index in range(200):
        model.graph.node.append(helper.make_node("MatMul", ["m0", f"m{index}"], [f"m{index + 1}"]))


def endless_row(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 20_000_000


def line_in_a_name(model: ModelProto) -> None:
    model.graph.node[0].name = "first\n2026-01-01 ERROR all is lost"


def size_of_a_value(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["features"], ["whole"], to=TensorProto.INT64))
    model.graph.node.append(helper.make_node("Expand", ["b0", "whole"], ["wide"]))


def places_of_a_value(model: ModelProto) -> None:
    """A size may follow from how many rows there are, but not from what is in them, however far behind."""
    model.graph.node.append(helper.make_node("Neg", ["features"], ["a1"]))
    model.graph.node.append(helper.make_node("Cast", ["a1"], ["whole"], to=TensorProto.INT64))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["whole"], ["filled"]))


def text_cast(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["b"], ["text"], to=TensorProto.STRING))


def text_constant(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["text"], value_strings=[b"a", b"b"]))


def weights_nan(model: ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), "b0"))


def reduced_over_all(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40], np.int64), "axes"))
    model.graph.node.append(helper.make_node("ReduceMean", ["b", "axes"], ["r"]))


def sized_by_a_constant(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["sizes"], value_ints=[-(1 << 62), 4]))
    model.graph.node.append(helper.make_node("Reshape", ["b", "sizes"], ["r"]))


def endless_scale(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("LeakyRelu", ["b"], ["r"], alpha=float("inf")))


def kernel_of_zero(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("MaxPool", ["b"], ["r"], kernel_shape=[0, 1 << 30]))


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (external_data, ArtifactInvalid, "external data"),
        (external_constant, ArtifactInvalid, "external data"),
        (unknown_op, ModelUnsupported, "Loop"),
        (made_up_op, ModelUnsupported, "RunShell"),
        (node_domain, ModelUnsupported, "evil"),
        (function, ModelUnsupported, "functions"),
        (subgraph, ModelUnsupported, "'body'"),
        (huge_dims, ArtifactInvalid, "w0"),
        (negative_dims, ArtifactInvalid, "w0"),
        (short_data, ArtifactInvalid, "w0"),
        (text_tensor, ArtifactInvalid, "w0"),
        (many_nodes, ModelUnsupported, "3005"),
        (doubling, ArtifactInvalid, "numbers a row"),
        (no_nodes, ArtifactInvalid, "nodes"),
        (no_input, ModelUnsupported, "one input"),
        (second_input, ModelUnsupported, "more"),
        (text_input, ModelUnsupported, "float32"),
        (fixed_batch, ModelUnsupported, "dynamic batch"),
        (open_features, ModelUnsupported, "fixed shape"),
        (no_output, ArtifactInvalid, "outputs"),
        (old_opset, ModelUnsupported, "got 9"),
        (no_opset, ArtifactInvalid, "operator set"),
        (dangling, ArtifactInvalid, "nowhere"),
        (cycle, ArtifactInvalid, "checker"),
        (sparse, ModelUnsupported, "sparse"),
        (wrong_shapes, ArtifactInvalid, "shapes"),
        (axis_beyond_all, ArtifactInvalid, "'axis' must be -8 to 8"),
        (empty_bias, ModelUnsupported, "left out, not be empty"),
        (growing_batch, ArtifactInvalid, "numbers a row"),
        (doubled_constants, ArtifactInvalid, "20000000 numbers, got 33554432"),
        (rows_by_rows, ModelUnsupported, "no faster than the rows"),
        (folded_for_minutes, ModelUnsupported, "products a row"),
        (endless_row, ArtifactInvalid, "20000000"),
        (line_in_a_name, ArtifactInvalid, r"'first\\n2026"),
        (
            size_of_a_value,
            ModelUnsupported,
            "Expand node 'wide': the size must not follow from the numbers in a row, as 'whole' does",
        ),
        (places_of_a_value, ModelUnsupported, "ConstantOfShape node 'filled': the size must not follow"),
        (text_cast, ModelUnsupported, "type 8"),
        (text_constant, ModelUnsupported, "text"),
        (weights_nan, ArtifactInvalid, "'b0' must hold numbers alone"),
        (reduced_over_all, ArtifactInvalid, "axes"),
        (sized_by_a_constant, ArtifactInvalid, "sizes"),
        (endless_scale, ArtifactInvalid, "finite"),
        (kernel_of_zero, ArtifactInvalid, "'kernel_shape' must be"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_hostile_files_are_refused_by_name(spoil: Callable[[ModelProto], None], kind: type[Exception], says: str) -> None:
    model = sound_model()
    spoil(model)
    with pytest.raises(kind, match=says):
        load_onnx(model.SerializeToString())


def test_a_name_of_other_bytes_than_text_is_refused_by_them() -> None:
    model = sound_model()
    model.graph.node[0].name = "xyzzy"
    data = model.SerializeToString().replace(b"xyzzy", b"x\xff\xfe\ny")
    with pytest.raises(ArtifactInvalid, match=r"b'x\\xff\\xfe\\ny'"):
        load_onnx(data)


def test_an_operator_set_that_no_node_uses_does_not_matter() -> None:
    model = sound_model()
    versions = [(entry.domain, entry.version) for entry in model.opset_import]
    del model.opset_import[:]
    for domain, version in (("ai.onnx.ml", 2), ("com.microsoft", 1), *versions):
        model.opset_import.add(domain=domain, version=version)
    taken = load_onnx(model.SerializeToString())
    assert [entry.domain for entry in taken.opset_import] == [""]
    assert signature_of(model.SerializeToString()).opset == 18
    model.graph.node[1].domain = "ai.onnx.ml"
    with pytest.raises(ModelUnsupported, match=r"Relu node 'relu': operator 'Relu' is not handled"):
        load_onnx(model.SerializeToString())


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x04\x95pickle", b"PK\x03\x04", b"\xff" * 1000])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        load_onnx(data)


def test_a_file_over_the_cap_is_refused_unread() -> None:
    with pytest.raises(ArtifactInvalid, match="1 to 100 bytes"):
        load_onnx(sound_model().SerializeToString(), FileLimits(size_bytes=100))


def test_mutated_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    data = np.frombuffer(clean(sound_model()), np.uint8)
    refused = 0
    for _ in range(400):
        twin = data.copy()
        twin[rng.integers(len(twin), size=3)] = rng.integers(256, size=3)
        try:
            load_onnx(twin.tobytes())
        except ArtifactInvalid:
            refused += 1
    assert refused > 50


def test_signature_tells_names_shapes_and_opset() -> None:
    graph = signature_of(sound_model().SerializeToString())
    assert (graph.input_name, graph.output_names, graph.feature_count) == ("features", ("scores",), 4)
    assert (graph.output_columns, graph.opset) == (3, 18)
    check_signature(graph, signature(4, 3))
    for wrong in (signature(5, 3), signature(4, 2), signature(4, 0)):
        with pytest.raises(ArtifactInvalid):
            check_signature(graph, wrong)


def test_clean_takes_out_what_exporters_leak_and_is_deterministic() -> None:
    model = sound_model()
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/secret.py line 3")
    model.graph.node[0].doc_string = model.doc_string = model.graph.doc_string = "secret"
    model.graph.value_info.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 4]))
    data = clean(model)
    assert b"secret" not in data
    assert not onnx.load_model_from_string(data).graph.value_info
    assert clean(model) == data == clean(load_onnx(data))


def test_constants_become_initializers() -> None:
    one = numpy_helper.from_array(np.ones(4, np.float32), "one")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=one),
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Add", ["features", "d"], ["scores"]),
    ]
    lifted = lift_constants(model_of(nodes))
    assert [node.op_type for node in lifted.graph.node] == ["Add"]
    assert [tensor.name for tensor in lifted.graph.initializer] == ["d"]
    assert signature_of(bytes_of(nodes)).feature_count == 4
