"""Make the exports of networks in this folder and `nets.npz`, what torch says of ten rows.

`pip install torch==2.14.0 onnxscript`, then `python make_nets.py`.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

FOLDER = Path(__file__).parent


class Recurrent(nn.Module):
    """A recurrent layer over a row of six steps of two numbers."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(2, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logits from the last step."""
        return self.head(self.layer(rows)[0][:, -1])


class Words(nn.Module):
    """Embeddings of four whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.head = nn.Linear(24, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return chances."""
        return torch.softmax(self.head(self.table(words).flatten(1)), 1)


class Two(nn.Module):
    """Two inputs side by side, one sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(12, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return one chance."""
        both = torch.cat([torch.relu(self.left(left)), torch.relu(self.right(right))], 1)
        return torch.sigmoid(self.head(both))


def encoder() -> nn.Module:
    """Return one layer of a transformer over six steps, and a head."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(2, 8), layer, nn.Flatten(), nn.Linear(48, 3))


def image() -> nn.Module:
    """Return a small network of convolutions with a padded and a strided layer, and one that goes up again."""
    down = [nn.ReflectionPad2d(1), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 4, 3, stride=2)]
    up = [nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 2, 2), nn.InstanceNorm2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*down, nn.Mish(), *up, nn.Linear(8, 3), nn.Softmax(1))


def main() -> None:
    """Export each network, untrained, and store its input and what it gives."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    rows = {"dense": (10, 4), "steps": (10, 6, 2), "image": (10, 1, 8, 8)}
    given: dict[str, Any] = {name: torch.randn(shape) for name, shape in rows.items()}
    words = torch.randint(0, 20, (10, 4))
    models: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], bool, bool]] = {
        # name: (network, inputs, by dynamo, dynamic batch)
        "torch_dense": (dense, (given["dense"],), True, True),
        "torch_dense_legacy": (dense, (given["dense"],), False, True),
        "torch_dense_one": (dense, (given["dense"],), False, False),
        "torch_double": (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).double(), (given["dense"].double(),), True, True),
        "torch_lstm": (Recurrent(nn.LSTM), (given["steps"],), False, True),
        "torch_gru": (Recurrent(nn.GRU), (given["steps"],), False, True),
        "torch_encoder": (encoder(), (given["steps"],), True, True),
        "torch_image": (image(), (given["image"],), True, True),
        "torch_image_one": (image(), (given["image"],), True, False),
        "torch_words": (Words(), (words,), True, True),
        "torch_two": (Two(), (given["dense"][:, :3], given["dense"][:, 2:]), True, True),
    }
    told: dict[str, np.ndarray] = {}
    for name, (net, inputs, dynamo, dynamic) in models.items():
        net.eval()
        names = [f"in{at}" for at in range(len(inputs))]
        asked = inputs if dynamic else tuple(one[:1] for one in inputs)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.onnx"
            options: dict[str, Any] = {"input_names": names, "output_names": ["out"], "opset_version": 18, "dynamo": dynamo}
            if dynamic and dynamo:
                options["dynamic_shapes"] = tuple({0: torch.export.Dim("batch", min=1, max=1 << 20)} for _ in inputs)
            elif dynamic:
                options["dynamic_axes"] = {one: {0: "batch"} for one in (*names, "out")}
            torch.onnx.export(net, asked, path, **options)
            model = onnx.load(path)
        for part in (model.graph, *model.graph.node):
            del part.metadata_props[:]  # paths and lines of the machine it was made on
            part.ClearField("doc_string")
        (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())
        with torch.no_grad():
            told[f"{name}="] = net(*inputs).numpy()
        told[name] = np.concatenate([one.numpy().reshape(10, -1) for one in inputs], 1).astype(np.float32)
    np.savez_compressed(FOLDER / "nets.npz", **told)


if __name__ == "__main__":
    main()
