"""Pruning takes whole channels: a smaller file, widths that are multiples, and after training and int8 a model that is as good."""

import msgspec
import numpy as np
import pytest
from onnx import numpy_helper

from driftloop.compression.cpu import Cpu
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.prune import prune
from driftloop.compression.small_model import train_small_model
from driftloop.compression.store import digest_of
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import ModelUnsupported
from driftloop.schemas.recipes import BUILT_IN, Prune
from driftloop.tests.onnx_graphs import signature, turning_rows
from driftloop.tests.test_steps import world

SIGNATURE = signature(4, 2)
pytest.importorskip("torch_pruning")


@pytest.fixture(scope="module")
def champion() -> bytes:
    return train_small_model(turning_rows(2000, 1), SIGNATURE)


def widths(piece: Workpiece) -> list[int]:
    shapes = [numpy_helper.to_array(tensor).shape for tensor in piece.model.graph.initializer]
    return [shape[0] for shape in shapes if len(shape) == 2]


@pytest.mark.parametrize(("ratio", "left"), [(0.5, 64), (0.45, 64), (0.8, 16)])
def test_layers_lose_their_share_of_channels_in_multiples(champion: bytes, ratio: float, left: int) -> None:
    piece, context = world((champion, champion))
    made = prune(Prune(ratio=ratio), piece, context)
    assert widths(made) == [left, left, 2]
    assert len(made.onnx) < len(champion)
    assert made.graph == piece.graph


def test_the_smallest_channels_go(champion: bytes) -> None:
    piece, context = world((champion, champion))
    scores = piece.runner.scores(context.data.training.features)
    apart = [
        float(np.abs(prune(Prune(ratio=ratio), piece, context).runner.scores(context.data.training.features) - scores).mean())
        for ratio in (0.125, 0.5, 0.875)
    ]
    assert apart == sorted(apart)
    assert apart[0] < 0.5 * apart[2]


@pytest.mark.parametrize("step", [Prune(ratio=0.99), Prune(multiple=128)])
def test_what_leaves_nothing_or_takes_nothing_is_refused(champion: bytes, step: Prune) -> None:
    with pytest.raises(ModelUnsupported, match="to prune"):
        prune(step, *world((champion, champion)))


def test_prune50_int8_is_data_alone(champion: bytes) -> None:
    recipe = BUILT_IN["prune50-int8"]
    free = msgspec.structs.replace(recipe.gate, max_latency_ratio=None, max_loss=0.05)
    job = Job(
        "j",
        "m",
        msgspec.structs.replace(recipe, gate=free),
        ModelVersion(1, digest_of(champion), champion),
        SIGNATURE,
        turning_rows(3000, 7),
    )
    outcome = Optimizer(RepairConfig(), iter(range(10**9)).__next__, Cpu(frozenset({"avx512_vnni"}))).run(job, lambda news: None)
    assert outcome.verdict.promoted, outcome.verdict.reasons
    assert outcome.verdict.size_bytes < 0.2 * outcome.verdict.champion_size_bytes
    assert outcome.manifest is not None
    assert outcome.manifest.calibration
    assert outcome.manifest.trained_rows == 2250
