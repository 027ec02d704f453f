"""Weights come back into the graph they left; exported modules are one file, opset 18, dynamic batch, without traces."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from driftloop.compression.export import check_parity, export_module, write_back
from driftloop.compression.importer import import_onnx
from driftloop.compression.onnx_file import clean, load_onnx, signature_of
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.tests.onnx_graphs import signature, sound_model

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def test_untouched_weights_give_the_same_bytes() -> None:
    data = clean(sound_model())
    assert write_back(load_onnx(data), import_onnx(data), ROWS) == data


def test_changed_weights_come_back_and_nothing_else_changes() -> None:
    data = clean(sound_model())
    imported = import_onnx(data)
    with torch.no_grad():
        for weight in imported.module.parameters():
            weight.add_(0.25)
    changed = write_back(load_onnx(data), imported, ROWS)
    before, after = onnx.load_model_from_string(data), onnx.load_model_from_string(changed)
    assert before.graph.node == after.graph.node
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert np.allclose(onnx.numpy_helper.to_array(old) + 0.25, onnx.numpy_helper.to_array(new))
    assert write_back(load_onnx(changed), import_onnx(changed), ROWS) == changed


def test_non_finite_weights_are_refused() -> None:
    imported = import_onnx(clean(sound_model()))
    with torch.no_grad():
        next(imported.module.parameters()).fill_(float("nan"))
    with pytest.raises(ArtifactInvalid, match="finite"):
        write_back(sound_model(), imported, ROWS)


def test_parity_fails_where_the_weights_differ() -> None:
    imported = import_onnx(clean(sound_model()))
    with torch.no_grad():
        next(imported.module.parameters()).add_(0.1)
    with pytest.raises(ArtifactInvalid, match="agree"):
        check_parity(clean(sound_model()), imported.module, ROWS)


class Images(nn.Module):
    """A small residual net with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(1))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = self.first(value)
        return self.head(torch.relu(value + self.second(value)))


def test_exports_of_torch_come_back_as_they_were() -> None:
    torch.manual_seed(0)
    module = Images()
    rows = np.random.default_rng(1).normal(size=(20, 64)).astype(np.float32)
    data = export_module(module, signature(64, 3), rows, (1, 8, 8))
    assert b"test_export" not in data
    assert signature_of(data).opset == 18
    assert check_parity(data, import_onnx(data).module, rows) <= 1e-5
