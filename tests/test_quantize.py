"""Int8 is smaller and nearly as good; the number format follows the CPU; raw inputs stay in float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from driftloop.compression.cpu import Cpu, read_cpu
from driftloop.compression.quantize import quantize_int8
from driftloop.compression.runtime import Runner, open_session, outcomes
from driftloop.compression.small_model import train_small_model
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.schemas.rows import Rows
from driftloop.streams.this_cpu import this_cpu
from driftloop.tests.onnx_graphs import bytes_of, signature, turning_rows

VNNI = Cpu(frozenset({"avx512_vnni"}))
EXPORTS = Path(__file__).parent / "exports"
SCALES = np.array([1, 1000, 0.01, 5], np.float32)


def scaled(count: int, seed: int) -> Rows:
    """Rows whose features have unlike ranges, which one scale for all of them would not survive."""
    rows = turning_rows(count, seed)
    return Rows(rows.features * SCALES, rows.labels, rows.offsets)


@pytest.fixture(scope="module")
def model() -> bytes:
    return train_small_model(scaled(2000, 1), signature(4, 2))


def test_int8_is_smaller_and_nearly_as_good(model: bytes) -> None:
    quantized = quantize_int8(model, scaled(300, 2).features, VNNI)
    later = scaled(2000, 3)
    before, after = (
        outcomes(Runner(data, signature(4, 2)).scores(later.features), later, "classification") for data in (model, quantized.onnx)
    )
    assert len(quantized.onnx) < 0.45 * len(model)
    assert abs(before.mean() - after.mean()) < 0.01
    assert quantized.preprocessed
    assert quantized.ranges["hidden0.low"] < -1 < 1 < quantized.ranges["hidden0.high"]
    assert not any(name.startswith("features") for name in quantized.ranges)


def test_the_same_rows_give_the_same_bytes(model: bytes) -> None:
    rows = scaled(100, 2).features
    assert quantize_int8(model, rows, VNNI).onnx == quantize_int8(model, rows, VNNI).onnx


@pytest.mark.parametrize(
    ("flags", "kind"), [("avx512_vnni", TensorProto.UINT8), ("avx2", TensorProto.UINT8), ("asimd", TensorProto.INT8)]
)
def test_the_format_follows_the_cpu(model: bytes, flags: str, kind: int) -> None:
    quantized = onnx.load_model_from_string(quantize_int8(model, scaled(100, 2).features, Cpu(frozenset({flags}))).onnx)
    held = {tensor.name: tensor for tensor in quantized.graph.initializer}
    zero_points = {held[node.input[2]].data_type for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {kind}
    weights = [
        onnx.numpy_helper.to_array(tensor) for tensor in held.values() if tensor.data_type == TensorProto.INT8 and tensor.dims
    ]
    widest = max(int(np.abs(weight.astype(int)).max()) for weight in weights if weight.ndim == 2)
    assert widest <= 64 if flags == "avx2" else widest > 100


def test_what_cannot_be_quantized_is_refused(model: bytes) -> None:
    rows = scaled(100, 2).features
    with pytest.raises(ModelUnsupported, match="already"):
        quantize_int8(quantize_int8(model, rows, VNNI).onnx, rows, VNNI)
    with pytest.raises(ArtifactInvalid, match="calibration"):
        quantize_int8(model, rows[:0], VNNI)


def scores_of(data: bytes, features: np.ndarray) -> np.ndarray:
    session = open_session(data)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: features})[0])


@pytest.mark.parametrize("name", ["mlp_classifier", "mlp_three_classes", "mlp_regressor"])
def test_an_export_of_scikit_learn_runs_in_int8_and_scores_near_the_float_model(name: str) -> None:
    """Its biases have shape (1, n)."""
    data = (EXPORTS / f"{name}.onnx").read_bytes()
    quantized = quantize_int8(data, turning_rows(300, 2).features, this_cpu())
    kinds = {node.op_type for node in onnx.load_model_from_string(quantized.onnx).graph.node}
    assert "QuantizeLinear" in kinds
    rows = turning_rows(2000, 3).features
    before, after = scores_of(data, rows), scores_of(quantized.onnx, rows)
    assert before.std() > 0.2
    assert np.abs(before - after).mean() < 0.03 * before.std()


@pytest.mark.parametrize("shape", [(1, 8), (1, 1), (1,), ()])
def test_a_bias_that_only_broadcasts_is_as_good_as_a_flat_one(shape: tuple[int, ...]) -> None:
    """The same tensor is added to the hidden layer elsewhere in the graph, where it keeps its shape."""
    rng = np.random.default_rng(0)
    tensors = {
        "w0": rng.normal(size=(4, 8)).astype(np.float32),
        "w1": rng.normal(size=(8, 2)).astype(np.float32),
        "b": rng.normal(size=shape).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w0", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Add", ["c", "b"], ["d"]),
        helper.make_node("MatMul", ["d", "w1"], ["scores"]),
    ]
    data, rows = bytes_of(nodes, tensors), turning_rows(500, 2).features
    before, after = scores_of(data, rows), scores_of(quantize_int8(data, rows, this_cpu()).onnx, rows)
    assert np.abs(before - after).mean() < 0.05 * before.std()


def test_cpu_flags_are_read_from_cpuinfo() -> None:
    assert read_cpu("processor: 0\nflags\t\t: fpu avx2 avx512_vnni\n").has_vnni
    assert read_cpu("Features : fp asimd").is_arm
    assert read_cpu("") == Cpu()
