"""The training loop of every arm: seeded, in memory, on one thread, with a learning rate that falls to nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..schemas.errors import JobError
from ..schemas.recipes import Finetune
from ..schemas.rows import Rows
from .importer import ImportedModel
from .track import Track


class FlatAdamW:
    """AdamW over all weights as one vector.

    torch.optim imports torch's compiler with its first optimizer, which takes a job's child longer than its training; and a step over
    one vector costs a handful of calls, however many layers there are.
    """

    def __init__(self, weights: list[torch.nn.Parameter], weight_decay: float) -> None:
        self._flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
        self._grad = torch.zeros_like(self._flat)
        self._first, self._second = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        self._decay = weight_decay
        self._steps = 0
        start = 0
        for weight in weights:
            part = slice(start, start + weight.numel())
            weight.data = self._flat[part].view_as(weight)
            weight.grad = self._grad[part].view_as(weight)
            start = part.stop

    def step(self, learning_rate: float) -> None:
        """Move the weights against their gradients, which are zero afterwards (Loshchilov and Hutter 2019, betas .9 and .999)."""
        self._steps += 1
        self._first.lerp_(self._grad, 0.1)
        self._second.mul_(0.999).addcmul_(self._grad, self._grad, value=0.001)
        spread = (self._second / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
        self._flat.mul_(1 - learning_rate * self._decay)
        self._flat.addcdiv_(self._first, spread, value=-learning_rate / (1 - 0.9**self._steps))
        self._grad.zero_()


@dataclass(frozen=True, slots=True)
class Examples:
    """Training rows with one weight each."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, rows: Rows, weight: float = 1.0) -> Examples:
        """Return `rows`, all of the same weight."""
        return cls(rows.features, rows.labels, np.full(len(rows), weight, np.float32))

    def __add__(self, other: Examples) -> Examples:
        """Return both, one behind the other."""
        return Examples(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.weights, other.weights]),
        )


@dataclass(frozen=True, slots=True)
class Training:
    """How to train, and what hears of it: after every epoch the track is told loss and learning rate, which early stopping reads too."""

    step: Finetune
    task: str
    seed: int
    track: Track


def train(imported: ImportedModel, examples: Examples, how: Training) -> float:
    """Train the weights of `imported` in place and return the mean loss of the last epoch.

    Rows on which the model gives no finite answer are left out. Raises JobError where none is left or the loss runs away.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        features = torch.from_numpy(np.ascontiguousarray(examples.features)).reshape(-1, *imported.input_shape)
        with torch.no_grad():
            finite = torch.isfinite(imported.trunk.eval()(features)).flatten(1).all(dim=1)
        if not bool(finite.any()):
            raise JobError("error", "training rows must give finite scores, got none that do")
        labels = _targets(examples.labels, how.task)[finite]
        weights = torch.from_numpy(examples.weights)[finite]
        loss = _fit(imported, (features[finite], labels, weights), how)
        imported.module.eval()
        imported.trunk.eval()
        return loss


def start_afresh(imported: ImportedModel, seed: int) -> None:
    """Start every trained layer afresh, seeded; fixed constants such as input standardisation stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in imported.module.modules():
            start = getattr(module, "reset_parameters", None)
            fixed = [name for name, weight in module.named_parameters(recurse=False) if not weight.requires_grad]
            if start is None or fixed:
                continue
            start()


def _targets(labels: NDArray[np.int64] | NDArray[np.float64], task: str) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64 if task == "classification" else np.float32))


def _fit(imported: ImportedModel, data: tuple[torch.Tensor, torch.Tensor, torch.Tensor], how: Training) -> float:
    features, labels, weights = data
    step, rows = how.step, len(labels)
    trunk = imported.trunk.train()
    optimizer = FlatAdamW([weight for weight in trunk.parameters() if weight.requires_grad], step.weight_decay)
    per_epoch = math.ceil(rows / step.batch_rows)
    epochs = max(step.epochs, math.ceil(step.min_steps / per_epoch))
    made = 0
    scale = float(labels.float().std()) if how.task == "regression" and rows > 1 else 1.0
    scalars = {"loss": 0.0}
    for epoch in range(epochs):
        order = torch.randperm(rows)
        batches = zip(*(torch.split(column[order], step.batch_rows) for column in (features, labels, weights)), strict=True)
        total, rate = torch.zeros(()), 0.0
        for batch, target, weight in batches:
            if len(target) == 1 and rows > 1:
                continue  # BatchNorm has no variance over one row
            loss = _loss(trunk(batch), target, weight, scale if how.task == "regression" else None)
            loss.backward()  # type: ignore[no-untyped-call]
            rate = step.learning_rate * 0.5 * (1 + math.cos(math.pi * made / (epochs * per_epoch)))
            optimizer.step(rate)
            made += 1
            total += loss.detach()
        scalars = {"loss": float(total) / per_epoch, "learning_rate": rate}
        if not math.isfinite(scalars["loss"]):
            raise JobError("error", f"training loss must be finite, got {scalars['loss']}")
        how.track.scalars((epoch + 1) / epochs, made, scalars)
        if scalars["loss"] < step.enough_loss:
            break
    return scalars["loss"]


def _loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    if scale is None:
        logits = output.flatten(1)
        if logits.shape[1] == 1:
            # One sigmoid: P(second class) of z is the softmax of (0, z).
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        losses = functional.cross_entropy(logits, target, reduction="none")
    else:
        unit = scale if scale > 0 else 1.0
        losses = functional.smooth_l1_loss(output.flatten() / unit, target / unit, reduction="none")
    return (losses * weight).sum() / weight.sum()
