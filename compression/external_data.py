"""External data: weights that an exporter put into a file beside the model's are packed into it, where that file bears the model's name.

A model may name any file; only one beside it whose name begins like its own is read (model.onnx: model.onnx.data, model.bin), never
through a link, and never more of it than the tensor's shape takes.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto, TensorProto

from ..schemas.errors import ArtifactInvalid
from ..schemas.plain_text import shown
from .onnx_checks import ITEM_BYTES, FileLimits

CURE = "save the model in one file, as onnx.save does unless told otherwise"


def pack(model: ModelProto, beside: Path, limits: FileLimits) -> str:
    """Read the external tensors of `model`, the file `beside`, into it; return what to say of it, nothing where there are none.

    Raises ArtifactInvalid for a file that is not beside it, bears another name or is too short, and for more data than a model may have.
    """
    names: dict[str, None] = {}
    total = 0
    for tensor in _external(model):
        said = {entry.key: entry.value for entry in tensor.external_data}
        size = math.prod(tensor.dims) * ITEM_BYTES.get(tensor.data_type, 0)
        if any(dim < 0 for dim in tensor.dims) or not size or (total := total + size) > limits.size_bytes:
            raise ArtifactInvalid(
                f"tensor {shown(tensor.name)} must be of numbers, at most {limits.size_bytes} bytes of all together"
            )
        name = said.get("location", "")
        offset = _whole(tensor, said.get("offset", "0"))
        if _whole(tensor, said.get("length", str(size))) != size:
            raise ArtifactInvalid(f"tensor {shown(tensor.name)} must take {size} bytes of its file, got {shown(said['length'])}")
        raw = _read(_beside(beside, name, tensor), offset, size, tensor)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = raw
        names[name] = None
    return f"external data is packed into the file: {', '.join(shown(name) for name in names)}" if names else ""


def _external(model: ModelProto) -> Iterator[TensorProto]:
    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.HasField("t")]
    return (tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL)


def _whole(tensor: TensorProto, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ArtifactInvalid(f"tensor {shown(tensor.name)} must say where it lies in whole numbers, got {shown(text)}")
    return int(text)


def _beside(beside: Path, name: str, tensor: TensorProto) -> Path:
    where = f"tensor {shown(tensor.name)} must lie in a file beside the model that is named like it, {shown(beside.stem)}..."
    if Path(name).name != name or not name.startswith(beside.stem) or name == beside.name or not name.isprintable():
        raise ArtifactInvalid(f"{where}, got external data in {shown(name)}: {CURE}")
    return beside.parent / name


def _read(path: Path, offset: int, size: int, tensor: TensorProto) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise ArtifactInvalid(
            f"external data of {shown(tensor.name)} must be readable, got {problem.strerror} ({shown(path.name)})"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ArtifactInvalid(f"external data must be a plain file ({shown(path.name)})")
        found = bytearray()
        while len(found) < size and (part := os.pread(handle, size - len(found), offset + len(found))):
            found += part
    finally:
        os.close(handle)
    if len(found) != size:
        raise ArtifactInvalid(f"tensor {shown(tensor.name)} must take {size} bytes of {shown(path.name)}, got {len(found)}")
    return bytes(found)
