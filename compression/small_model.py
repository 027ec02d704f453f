"""A small model for a first champion: two hidden layers, input standardisation and missing values inside the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ..schemas.events import Signature
from ..schemas.recipes import Finetune
from ..schemas.rows import Rows
from .export import OPSET, write_back
from .importer import import_model
from .onnx_file import clean, load_onnx
from .standardisation import standardisation
from .track import Track
from .trainer import Examples, Training, start_afresh, train

IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class SmallModelConfig:
    """The size of the model and how it is trained."""

    widths: tuple[int, ...] = (128, 128)
    training: Finetune = field(default_factory=Finetune)
    seed: int = 0


def train_small_model(rows: Rows, signature: Signature, config: SmallModelConfig | None = None) -> bytes:
    """Return a trained model as ONNX: `features` float32 (n, k) to class probabilities, or to one number a row.

    A missing value (NaN) counts as the mean of the training rows, inside the graph.
    """
    chosen = SmallModelConfig() if config is None else config
    model = load_onnx(untrained_model(rows, signature, chosen.widths))
    imported = import_model(model)
    start_afresh(imported.module, chosen.seed)
    train(imported, Examples.of(rows), Training(chosen.training, signature.task, chosen.seed, Track(lambda progress: None)))
    return write_back(model, imported, rows.features[:64])


def untrained_model(rows: Rows, signature: Signature, widths: tuple[int, ...]) -> bytes:
    """Return the graph with the standardisation of `rows` and weights of zero."""
    means, scales = standardisation(rows.features)
    tensors = {"mean": means, "scale": scales}
    nodes = [
        helper.make_node("IsNaN", [signature.input_name], ["missing"], "find_missing"),
        helper.make_node("Where", ["missing", "mean", signature.input_name], ["filled"], "fill_missing"),
        helper.make_node("Sub", ["filled", "mean"], ["centred"], "centre"),
        helper.make_node("Div", ["centred", "scale"], ["hidden0"], "scale_inputs"),
    ]
    columns = len(signature.classes) if signature.task == "classification" else 1
    sizes = (len(means), *widths, columns)
    for index, (in_size, out_size) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        tensors[f"weight{index}"] = np.zeros((out_size, in_size), np.float32)
        tensors[f"bias{index}"] = np.zeros(out_size, np.float32)
        made = "logits" if last else f"linear{index}"
        nodes.append(
            helper.make_node("Gemm", [f"hidden{index}", f"weight{index}", f"bias{index}"], [made], f"layer{index}", transB=1)
        )
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"hidden{index + 1}"], f"relu{index}"))
    if signature.task == "classification":
        nodes.append(helper.make_node("Softmax", ["logits"], [signature.output_name], "probabilities", axis=1))
    else:
        # The layers give numbers near 1; the labels may lie anywhere, and AdamW would be long on the way.
        tensors["label_scale"] = np.array([max(float(rows.labels.std()), 1e-12)], np.float32)
        tensors["label_mean"] = np.array([rows.labels.mean()], np.float32)
        nodes.append(helper.make_node("Mul", ["logits", "label_scale"], ["spread"], "scale_output"))
        nodes.append(helper.make_node("Add", ["spread", "label_mean"], [signature.output_name], "shift_output"))
    graph = helper.make_graph(
        nodes,
        "driftloop",
        [helper.make_tensor_value_info(signature.input_name, TensorProto.FLOAT, ["batch", len(means)])],
        [helper.make_tensor_value_info(signature.output_name, TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return clean(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION))
