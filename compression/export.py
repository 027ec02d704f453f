"""Torch back into ONNX: trained weights into the graph they came from, or a new graph from the exporter, both checked against torch."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import nn

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.events import Signature
from .importer import ImportedModel
from .onnx_file import clean, graph_signature, lift_constants, load_onnx
from .runtime import open_session

OPSET = 18
PARITY_BATCHES = (1, 2, 17)
PARITY = 1e-4
Floats = NDArray[np.float32]


def write_back(loaded: ModelProto, imported: ImportedModel, features: Floats, *, reshaped: bool = False) -> bytes:
    """Return a model that load_onnx gave, with the weights of `imported`: same graph, same inputs and outputs, no exporter run.

    `features` (n, k) are real rows on which torch and onnxruntime must agree; raises ArtifactInvalid where they do not. Weights of other
    shapes than the graph's are taken only where they were `reshaped`, by pruning say.
    """
    model = lift_constants(loaded)
    tensors = {**dict(imported.module.named_parameters()), **dict(imported.module.named_buffers())}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for link in imported.links:
        array = tensors[link.path].detach().numpy()
        old = held[link.initializer]
        new = numpy_helper.from_array(np.ascontiguousarray(array.T if link.transposed else array), link.initializer)
        if (list(new.dims) != list(old.dims) and not reshaped) or not np.isfinite(array).all():
            raise ArtifactInvalid(f"weight {link.initializer!r} must be finite and of shape {list(old.dims)}, got {list(new.dims)}")
        old.CopyFrom(new)
    if reshaped:
        del model.graph.value_info[:]  # they tell the shapes that were
    result = clean(model)
    check_parity(result, imported.module, features)
    return result


def export_module(module: nn.Module, signature: Signature, features: Floats, input_shape: tuple[int, ...] | None = None) -> bytes:
    """Return `module` as ONNX of opset 18 with a dynamic batch, in one file, named and checked as `signature` says.

    `features` (n, k) are real rows; `input_shape` is without the batch, (k,) unless given. Takes seconds: the exporter traces.
    Raises ModelUnsupported where the exporter gives up or answers with another opset.
    """
    shape = (features.shape[1],) if input_shape is None else input_shape
    module = module.eval()
    example = torch.zeros((2, *shape))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # external_data defaults to True and would write a second file; a batch of 1 may be frozen as a constant.
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[signature.input_name],
                output_names=[signature.output_name],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as problem:
        raise ModelUnsupported(f"module must be exportable by torch {torch.__version__}: {str(problem)[:300]}") from problem
    finally:
        logger.setLevel(level)
    if program is None:
        raise ModelUnsupported("module must be exportable, got no program")
    result = clean(onnx.load_model_from_string(program.model_proto.SerializeToString()))
    opset = graph_signature(load_onnx(result)).opset
    if opset != OPSET:
        raise ModelUnsupported(f"exported opset must be {OPSET}, got {opset}")
    check_parity(result, module, features, shape)
    return result


def check_parity(data: bytes, module: nn.Module, features: Floats, input_shape: tuple[int, ...] | None = None) -> float:
    """Return the largest difference between torch and onnxruntime at batches of 1, 2 and 17; raises ArtifactInvalid above 1e-4.

    Differences are relative to the size of the output where that is above 1.
    """
    graph = graph_signature(load_onnx(data))
    session = open_session(data)
    shape = graph.input_shape if input_shape is None else input_shape
    module = module.eval()
    worst = 0.0
    for size in PARITY_BATCHES:
        rows = np.resize(features, (size, features.shape[1])).astype(np.float32).reshape(size, *shape)
        try:
            said = np.asarray(session.run([graph.output_names[0]], {graph.input_name: rows})[0])
        except Exception as problem:  # onnxruntime's exceptions share no base class but this
            raise ArtifactInvalid(f"model must run on a batch of {size}: {str(problem)[:300]}") from problem
        with torch.no_grad():
            meant = module(torch.from_numpy(rows)).numpy()
        if said.shape != meant.shape:
            raise ArtifactInvalid(f"model must give shape {list(meant.shape)} on a batch of {size}, got {list(said.shape)}")
        gap = np.abs(said - meant) / np.maximum(1.0, np.abs(meant))
        worst = max(worst, float(np.nan_to_num(gap, nan=0.0, posinf=np.inf).max(initial=0.0)))
        if not worst <= PARITY or not (np.isfinite(said) == np.isfinite(meant)).all():
            raise ArtifactInvalid(f"model must agree with torch within {PARITY}, got {worst:.2g} on a batch of {size}")
    return worst
