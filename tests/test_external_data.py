"""Weights in a file beside the model are packed into it where that file bears the model's name; no other file is ever read."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto

from driftloop.compression import external_data
from driftloop.compression.adoption import adopt
from driftloop.compression.onnx_checks import FileLimits
from driftloop.compression.onnx_file import load_onnx
from driftloop.compression.seen import Adoption
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.settings import Settings
from driftloop.streams.publishing import adopt_model
from driftloop.tests.onnx_graphs import sound_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The sound model as onnx itself saves one with its weights apart."""
    path = tmp_path / "net.onnx"
    onnx.save(sound_model(), path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return path


def adopted(path: Path) -> ModelProto:
    return load_onnx(adopt(path.read_bytes(), Adoption(beside=str(path))).onnx)


def test_weights_beside_the_model_become_part_of_it(file: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="external data"):
        load_onnx(file.read_bytes())
    held = {tensor.name: tensor for tensor in sound_model().graph.initializer}
    for tensor in adopted(file).graph.initializer:
        assert onnx.numpy_helper.to_array(tensor).tolist() == onnx.numpy_helper.to_array(held[tensor.name]).tolist()
    made = adopt_model(Settings(), file)
    assert made.notes == ("external data is packed into the file: 'net.onnx.data'",)


def entry(tensor: TensorProto, key: str) -> object:
    return next(one for one in tensor.external_data if one.key == key)


def location(name: str) -> Callable[[TensorProto, Path], None]:
    def change(tensor: TensorProto, folder: Path) -> None:
        entry(tensor, "location").value = name.replace("FOLDER", str(folder))  # type: ignore[attr-defined]

    return change


def said(key: str, value: str) -> Callable[[TensorProto, Path], None]:
    def change(tensor: TensorProto, folder: Path) -> None:
        entry(tensor, key).value = value  # type: ignore[attr-defined]

    return change


def linked(tensor: TensorProto, folder: Path) -> None:
    (folder / "net.link").symlink_to("/etc/passwd")
    location("net.link")(tensor, folder)


def fifo(tensor: TensorProto, folder: Path) -> None:
    os.mkfifo(folder / "net.fifo")
    location("net.fifo")(tensor, folder)


def text(tensor: TensorProto, folder: Path) -> None:
    tensor.data_type = TensorProto.STRING


def negative(tensor: TensorProto, folder: Path) -> None:
    tensor.dims[0] = -8


def huge(tensor: TensorProto, folder: Path) -> None:
    tensor.dims[:] = [1 << 40, 1 << 20]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (location("/etc/passwd"), "named like it, 'net'..., got external data in '/etc/passwd'"),
        (location("../net.onnx.data"), "beside the model that is named like it"),
        (location("FOLDER/net.onnx.data"), "beside the model that is named like it"),
        (location(".env"), "got external data in '.env': save the model in one file"),
        (location("net.onnx"), "beside the model that is named like it"),
        (location("net\n.data"), "beside the model"),
        (location(""), "beside the model"),
        (location("net.missing"), "must be readable, got No such file"),
        (linked, "must be readable, got Too many levels of symbolic links"),
        (fifo, "must be a plain file"),
        (said("offset", "-4"), "in whole numbers, got '-4'"),
        (said("offset", "9" * 30), "in whole numbers"),
        (said("offset", "100000"), "must take 128 bytes of 'net.onnx.data', got 0"),
        (said("length", "64"), "must take 128 bytes of its file, got '64'"),
        (text, "must be of numbers"),
        (negative, "must be of numbers"),
        (huge, "at most 268435456 bytes"),
    ],
)
def test_any_other_file_or_place_is_refused(file: Path, change: Callable[[TensorProto, Path], None], says: str) -> None:
    (file.parent / ".env").write_bytes(b"x" * 4096)
    model = onnx.load(file, load_external_data=False)
    change(model.graph.initializer[0], file.parent)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactInvalid, match=says):
        adopted(file)


def test_all_of_it_together_is_bounded(file: Path) -> None:
    model = onnx.load(file, load_external_data=False)
    with pytest.raises(ArtifactInvalid, match="at most 200 bytes of all together"):
        external_data.pack(model, file, FileLimits(size_bytes=200))


def test_without_a_place_nothing_is_read(file: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="must be stored inside the model file"):
        adopt(file.read_bytes())
