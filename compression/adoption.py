"""Adoption: a file as an exporter wrote it becomes one that can be served: its scores a matrix, its operator sets of today.

What the numbers mean is never changed: maps of scores (ZipMap) are taken off the matrix they are made of, answers beside the scores are
left out, operators are said in the words of a later set. Each change is told.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.events import Scalar
from ..schemas.plain_text import one_line, shown
from .external_data import pack
from .ml_attributes import Attributes
from .one_matrix import to_one_matrix
from .onnx_checks import LIMITS, FileLimits, describe
from .onnx_file import check_by_onnx, graph_signature, load_onnx, parse_onnx
from .open_batch import check_opened, open_batch
from .operator_sets import DOMAINS, ML_DOMAIN, OLD_OPSETS, OPSETS
from .seen import PLAIN, Adopted, Adoption
from .squash import squash

OPSET = 18
IR_VERSION = 8
"""The oldest form of file in which operator set 18 is at home; before version 4 weights had to be inputs."""
_SCORES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_LABELLED = {"classlabels_int64s": "wholes", "classlabels_ints": "wholes", "classlabels_strings": "texts"}


def adopt(data: bytes, asked: Adoption = PLAIN, limits: FileLimits = LIMITS) -> Adopted:
    """Return the model in `data` as load_onnx takes it, the same bytes where nothing had to be changed.

    Raises ArtifactInvalid, ModelUnsupported as load_onnx. Files of strangers are adopted in a child (streams/model_trial.py).
    """
    model = parse_onnx(data, limits)
    notes = [] if asked.beside is None else [note for note in (pack(model, Path(asked.beside), limits),) if note]
    named = any(node.domain in DOMAINS for node in model.graph.node)
    classes = _take_off_maps(model, notes)
    _leave_out_answers(model, notes)
    classes = classes if classes else _named_classes(model)
    model = _lift(model, notes, named)
    is_opened = open_batch(model, notes)
    columns = to_one_matrix(model, limits)
    notes += columns.notes
    if asked.squash:
        scores = [value.name for value in model.graph.output if value.type.tensor_type.elem_type in _SCORES]
        if not scores:
            raise ArtifactInvalid("model must have an output of floating-point numbers to squash, got none")
        notes.append(squash(model, scores[-1], asked.squash))
    if notes:
        model.ir_version = max(model.ir_version, IR_VERSION)
        data = bytes(model.SerializeToString(deterministic=True))
    loaded = load_onnx(data, limits)
    if is_opened:
        check_opened(data, graph_signature(loaded))
    return Adopted(data, tuple(notes), classes, tuple(columns.features), columns.categories)


def _take_off_maps(model: ModelProto, notes: list[str]) -> tuple[Scalar, ...]:
    """Put the matrix that a ZipMap reads in its place; return the classes it named."""
    graph = model.graph
    classes: tuple[Scalar, ...] = ()
    for node in graph.node:
        if node.domain != ML_DOMAIN or node.op_type != "ZipMap":
            continue
        if len(node.input) != 1 or len(node.output) != 1:
            raise ArtifactInvalid(f"{describe(node)} must have one input and one output")
        classes = _labels(node)
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
        if any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in graph.input):
            # onnxruntime takes a matrix of doubles there, though the operator has floats alone.
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        for value in graph.output:
            if value.name == node.output[0]:
                value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None, len(classes)]))
        notes.append(f"ZipMap is taken out: output {shown(node.output[0])} is the matrix of scores, a column for each class")
    return classes


def _leave_out_answers(model: ModelProto, notes: list[str]) -> None:
    """Take out outputs that hold no scores where another one does, and the nodes that are there for them alone."""
    graph = model.graph
    if not any(node.domain == ML_DOMAIN for node in graph.node):
        return
    kept = [value for value in graph.output if value.type.tensor_type.elem_type in _SCORES]
    left_out = [value.name for value in graph.output if value.type.tensor_type.elem_type not in _SCORES]
    if not kept or not left_out:
        return
    _keep(graph.output, kept)
    needed = {value.name for value in kept}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    _keep(graph.node, nodes[::-1])
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _keep(graph.value_info, [value for value in graph.value_info if value.name in needed])
    notes.append(f"outputs that hold no scores are left out: {', '.join(shown(name) for name in left_out)}")


def _keep(part: object, kept: list[NodeProto] | list[ValueInfoProto] | list[TensorProto]) -> None:
    copies = []
    for one in kept:
        copies.append(type(one)())
        copies[-1].CopyFrom(one)
    del part[:]  # type: ignore[attr-defined]
    part.extend(copies)  # type: ignore[attr-defined]


def _named_classes(model: ModelProto) -> tuple[Scalar, ...]:
    """Return the classes that the last classifier of the graph names."""
    for node in reversed(model.graph.node):
        if node.domain == ML_DOMAIN and node.op_type.endswith("Classifier"):
            return _labels(node)
    return ()


def _labels(node: NodeProto) -> tuple[Scalar, ...]:
    found = Attributes(node)
    for name, kind in _LABELLED.items():
        if found.has(name):
            return tuple(found.texts(name)) if kind == "texts" else tuple(int(label) for label in found.wholes(name))
    raise ArtifactInvalid(f"{describe(node)} must name its classes, got none")


def _lift(model: ModelProto, notes: list[str], named: bool) -> ModelProto:
    """Return the model in an operator set that is known, which must be `named` already where the file uses one of ai.onnx.

    Raises ModelUnsupported where onnx cannot say it in a later one.
    """
    versions = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
    if not versions and not named:
        model.opset_import.add(domain="", version=OPSET)
        notes.append(f"operator set {OPSET} of ai.onnx is named beside {ML_DOMAIN}")
    elif len(versions) == 1 and (old := next(iter(versions))) in OLD_OPSETS:
        check_by_onnx(model)  # the converter ends the process with signal 11 on some that are not sound (onnx 1.23.2)
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as problem:  # onnx raises what its parts raise, some of it straight from C++
            raise ModelUnsupported(f"model opset must be {OPSETS[0]} to {OPSETS[-1]}, got {old}: {one_line(problem)}") from problem
        notes.append(f"operator set {old} is lifted to {OPSET}")
    return model
