"""Open batch: a graph that was exported for so many rows takes any number, where each row is answered as it is alone."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from ..schemas.errors import ArtifactInvalid, ModelUnsupported
from ..schemas.plain_text import one_line
from .graph_signature import GraphSignature
from .runtime import open_session

ROWS = 5
ALIKE = 1e-4


def open_batch(model: ModelProto, notes: list[str]) -> bool:
    """Let the inputs of `model` have any number of rows where they say how many; return whether one did."""
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    counts = set()
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in held and dims and dims[0].HasField("dim_value"):
            counts.add(dims[0].dim_value)
            dims[0].dim_param = "batch"
    if len(counts) != 1:
        # Several numbers are no batch; without one there is nothing to open.
        return False
    count = counts.pop()
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim[:1]:
            dim.dim_param = "batch"
    del graph.value_info[:]
    for node in graph.node:
        if node.op_type == "Reshape" and len(node.input) > 1 and node.input[1] in held:
            _open_reshape(held[node.input[1]], count)
    notes.append(f"a batch of {count} became one of any number of rows")
    return True


def check_opened(data: bytes, graph: GraphSignature) -> None:
    """Raise ModelUnsupported unless rows are answered together as each of them is alone."""
    session = open_session(data)
    rows = np.abs(np.random.default_rng(0).normal(size=(ROWS, *graph.input_shape))).astype(np.float32)
    names = [output.name for output in graph.outputs if output.kind in (TensorProto.FLOAT, TensorProto.DOUBLE)]
    cure = "export it with a dynamic batch"
    try:
        alone = [session.run(names, {graph.input_name: rows[at : at + 1]}) for at in range(ROWS)]
        together = session.run(names, {graph.input_name: rows})
    except Exception as problem:  # onnxruntime's exceptions share no base class but this
        raise ArtifactInvalid(f"model must run on any number of rows, {cure}: {one_line(problem)}") from problem
    for at in range(len(names)):
        wanted = np.concatenate([np.asarray(one[at]) for one in alone])
        found = np.asarray(together[at])
        if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=ALIKE, atol=ALIKE, equal_nan=True):
            raise ModelUnsupported(f"model must answer each row by itself, whatever the batch: {cure}")


def _open_reshape(tensor: TensorProto, count: int) -> None:
    if tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1:
        return
    sizes = numpy_helper.to_array(tensor)
    if len(sizes) > 1 and sizes[0] == count:
        # 0 says: as many as come in.
        tensor.CopyFrom(numpy_helper.from_array(np.array([0, *sizes[1:]], np.int64), tensor.name))
