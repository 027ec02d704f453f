"""The step `quantize`: static int8 for x64 and ARM, calibrated on real rows, in the one number format that is fast on the CPU at hand."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.recipes import Quantize
from .cpu import Cpu
from .job_context import JobContext
from .onnx_file import clean, graph_signature, load_onnx
from .workpiece import Workpiece

_WEIGHTED = ("Gemm", "MatMul", "Conv")
# Softmax is left out on purpose: probabilities in 256 steps tie. So are Sub and Div: raw inputs of unlike ranges cannot share one scale.
_QUANTIZED = [
    *_WEIGHTED,
    *(
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Flatten",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
        "Reshape",
        "Transpose",
    ),
]
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Quantized:
    """The int8 model with the ranges it was calibrated to (`<tensor>.low`, `<tensor>.high`)."""

    onnx: bytes
    ranges: dict[str, float]
    preprocessed: bool


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, rows: NDArray[np.float32]) -> None:
        self._batches = ({name: rows[start : start + _BATCH]} for start in range(0, len(rows), _BATCH))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def quantize(step: Quantize, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model in static int8; raises as quantize_int8."""
    rows = context.data.calibration(step.rows)
    context.track.progress(0.0, f"calibrating on {len(rows)} rows")
    made = quantize_int8(piece.onnx, rows, context.cpu, piece.model)
    return piece.changed(made.onnx, ranges=made.ranges)


def quantize_int8(data: bytes, features: NDArray[np.float32], cpu: Cpu, loaded: ModelProto | None = None) -> Quantized:
    """Return `data` in static int8, calibrated (min and max) on `features` (n, k); `loaded` is what load_onnx gave for it.

    x64: unsigned activations, signed weights, one bit less without VNNI, where products would saturate. ARM: both signed.
    Raises ModelUnsupported where there is nothing to quantize, ArtifactInvalid where onnxruntime fails.
    """
    model = load_onnx(data) if loaded is None else loaded
    kinds = {node.op_type for node in model.graph.node}
    if kinds & {"QuantizeLinear", "DequantizeLinear"}:
        raise ModelUnsupported("model must not be quantized already, got QuantizeLinear nodes")
    if not kinds & set(_WEIGHTED):
        raise ModelUnsupported(f"model must have a {', '.join(_WEIGHTED)} node to quantize, got {sorted(kinds)}")
    if not len(features):
        raise ArtifactInvalid("calibration rows must be at least 1, got 0")
    graph = graph_signature(model)
    rows = np.ascontiguousarray(features, np.float32).reshape(len(features), *graph.input_shape)
    with _quiet(), tempfile.TemporaryDirectory(prefix="driftloop-int8-") as folder:
        source, preprocessed = _preprocess(data, Path(folder))
        raw = _make_quantizable(source)
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                str(source),
                str(target),
                _Batches(graph.input_name, rows),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTIZED,
                nodes_to_exclude=raw,
                per_channel=True,
                reduce_range=not cpu.has_vnni and not cpu.is_arm,
                activation_type=QuantType.QInt8 if cpu.is_arm else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except Exception as problem:  # onnxruntime's quantizer raises whatever its parts raise
            raise ArtifactInvalid(f"model must be quantizable: {type(problem).__name__}: {str(problem)[:300]}") from problem
        result = clean(_one_domain(onnx.load_model(str(target), load_external_data=False)))
    checked = load_onnx(result)
    _check_scales(checked)
    return Quantized(result, _ranges(checked), preprocessed)


def _preprocess(data: bytes, folder: Path) -> tuple[Path, bool]:
    """Return a file that BatchNorm is folded in and shapes are known; where that crashes (onnxruntime#19997), the model as it is."""
    source, target = folder / "source.onnx", folder / "prepared.onnx"
    source.write_bytes(data)
    try:
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        load_onnx(clean(_one_domain(onnx.load_model(str(target), load_external_data=False))))
    except Exception:  # noqa: BLE001 - it crashes in many ways on sound graphs, and is only an improvement
        return source, False
    return target, True


def _make_quantizable(file: Path) -> list[str]:
    """Bring the model in `file` into the shape that the quantizer takes, and return its nodes that stay in float32."""
    model = onnx.load_model(str(file), load_external_data=False)
    _flatten_biases(model)
    raw = _before_weights(model)
    file.write_bytes(model.SerializeToString())
    return raw


def _one_domain(model: ModelProto) -> ModelProto:
    """Return the model importing ai.onnx alone: the optimizer lists every domain it knows, used or not."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in ("", "ai.onnx")]
    versions = [(entry.domain, entry.version) for entry in kept]
    del model.opset_import[:]
    for domain, version in versions:
        model.opset_import.add(domain=domain, version=version)
    return model


def _flatten_biases(model: ModelProto) -> None:
    """Give every Gemm a bias of shape (n,): onnxruntime's quantizer fails on what only broadcasts to it, such as scikit-learn's (1, n)."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Gemm" or len(node.input) < 3 or not {node.input[1], node.input[2]} <= set(held):
            continue
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        columns = held[node.input[1]].shape[0 if turned else 1]
        bias = held[node.input[2]]
        if bias.shape == (columns,) or bias.size not in (1, columns) or set(bias.shape[:-1]) - {1}:
            continue
        # A tensor of its own: others may use the one that was there.
        name = f"{node.input[2]}.flat.{index}"
        flat = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (columns,)))
        model.graph.initializer.append(numpy_helper.from_array(flat, name))
        node.input[2] = name
    used = {name for node in model.graph.node for name in node.input} | {
        value.name for value in (*model.graph.input, *model.graph.output)
    }
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def _before_weights(model: ModelProto) -> list[str]:
    """Return the nodes, named where they are not, before the first layer with weights: they work on raw inputs and stay in float32."""
    behind: set[str] = set()
    names = []
    for index, node in enumerate(model.graph.node):
        node.name = node.name if node.name else f"node_{index}"
        if node.op_type in _WEIGHTED or behind & set(node.input):
            behind.update(node.output)
        else:
            names.append(node.name)
    return names


def _check_scales(model: ModelProto) -> None:
    """Raise ArtifactInvalid where a scale is no positive number: such a file answers nothing, or the same to everything."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in held:
            continue
        scale = numpy_helper.to_array(held[node.input[1]])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            wrong = float(scale[~(np.isfinite(scale) & (scale > 0))].reshape(-1)[0])
            cure = "calibrate on rows whose values are finite"
            raise ArtifactInvalid(f"scale of {node.input[0]!r} must be a positive number, got {wrong}; {cure}")


def _ranges(model: ModelProto) -> dict[str, float]:
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    ranges: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in held:
            continue
        scale, zero = _scalar(held[node.input[1]]), held[node.input[2]]
        limits = np.iinfo(zero.dtype)
        ranges[f"{node.input[0]}.low"] = (limits.min - _scalar(zero)) * scale
        ranges[f"{node.input[0]}.high"] = (limits.max - _scalar(zero)) * scale
    return ranges


def _scalar(array: NDArray[Any]) -> float:
    return float(array.reshape(-1)[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice on the root logger and its warnings out of our streams."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
