"""The training loop of every arm, of torch's own parts: seeded, in memory, with a learning rate that falls to nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..schemas.errors import JobError
from ..schemas.recipes import Descent
from ..schemas.rows import Rows
from .last_layer import LastLayer, last_layer
from .robust_line import fit_line
from .track import Track

Labels = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Examples:
    """Training rows with one weight each."""

    features: NDArray[np.float32]
    labels: Labels
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


class Trainable(Protocol):
    """What can be trained: `trunk` gives logits or numbers for features of `input_shape`, without the batch."""

    @property
    def trunk(self) -> nn.Module:
        """Return the module that is trained."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one row."""


@dataclass(frozen=True, slots=True)
class Training:
    """How to train, and what hears of it: loss, metric and learning rate after every epoch, which early stopping reads too.

    `members`: the trunk is so many models of one input side by side, and gives their outputs one behind the other.
    """

    step: Descent
    task: str
    seed: int
    track: Track
    members: int = 1


def train(trained: Trainable, examples: Examples, how: Training) -> float:
    """Train the weights of `trained` in place and return the mean loss of the last epoch.

    Rows on which the model gives no finite answer are left out. Raises JobError where none is left or the loss runs away.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        features = torch.from_numpy(np.ascontiguousarray(examples.features)).reshape(-1, *trained.input_shape)
        with torch.no_grad():
            given = trained.trunk.eval()(features).reshape(len(features), -1)
        finite = torch.isfinite(given).all(dim=1)
        if not bool(finite.any()):
            raise JobError("error", "training rows must give finite scores, got none that do")
        features, labels = features[finite], examples.labels[finite.numpy()]
        weights = torch.from_numpy(examples.weights)[finite]
        unit = _Unit() if how.task == "classification" else _Unit.of(trained.trunk, given[finite, 0].numpy(), labels)
        unit.enter()
        loss = _fit(trained.trunk, (features, _targets(unit.of_labels(labels), how.task), weights), how, unit.size)
        unit.leave()
        trained.trunk.eval()
        return loss


@dataclass(frozen=True, slots=True)
class _Unit:
    """The unit in which a regression is trained: its labels' own, unless the last layer can take a mean of 0 and a spread of 1."""

    last: LastLayer | None = None
    factor: float = 1.0
    shift: float = 0.0
    line: tuple[float, float] = (1.0, 0.0)

    @classmethod
    def of(cls, trunk: nn.Module, given: NDArray[np.float32], labels: Labels) -> _Unit:
        last, spread = last_layer(trunk), float(labels.std())
        if last is None or spread <= 0:
            return cls()
        line = fit_line(given.astype(np.float64), labels.astype(np.float64), 1.0)
        return cls(last, *last.in_unit(float(labels.mean()), spread), line)

    @property
    def size(self) -> float:
        """Return how much of the labels' own unit one of this is."""
        return 1 / abs(self.factor)

    def of_labels(self, labels: Labels) -> Labels:
        return labels if self.last is None else labels.astype(np.float64) * self.factor + self.shift

    def enter(self) -> None:
        if self.last is not None:
            # Labels in another unit, or far off, are met by a line at once; training would be long on the way.
            self.last.rescale(*self.line)
            self.last.rescale(self.factor, self.shift)

    def leave(self) -> None:
        if self.last is not None:
            self.last.rescale(1 / self.factor, -self.shift / self.factor)


def warm_up() -> None:
    """Make an optimizer: with the first one torch imports its compiler, which takes as long as the import of torch itself."""
    torch.set_num_threads(1)
    AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)


def start_afresh(module: nn.Module, seed: int) -> None:
    """Start every trained layer afresh, seeded; fixed constants such as input standardisation stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            start = getattr(part, "reset_parameters", None)
            fixed = [name for name, weight in part.named_parameters(recurse=False) if not weight.requires_grad]
            if start is None or fixed:
                continue
            start()


def _targets(labels: Labels, task: str) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64 if task == "classification" else np.float32))


def _fit(trunk: nn.Module, data: tuple[torch.Tensor, torch.Tensor, torch.Tensor], how: Training, unit: float) -> float:
    features, labels, weights = data
    step, rows = how.step, len(labels)
    trunk.train()
    weighted = [weight for weight in trunk.parameters() if weight.requires_grad]
    per_epoch = math.ceil(rows / step.batch_rows)
    epochs = max(step.epochs, math.ceil(step.min_steps / per_epoch))
    # One fused call a step; the loop over the weights costs more than such small networks' own work.
    optimizer = AdamW(weighted, lr=step.learning_rate, weight_decay=step.weight_decay, fused=True)
    falling = CosineAnnealingLR(optimizer, T_max=epochs * per_epoch)
    made = 0
    scale = float(labels.float().std()) if how.task == "regression" and rows > 1 else 1.0
    scalars = {"loss": 0.0}
    for epoch in range(epochs):
        order = torch.randperm(rows)
        batches = zip(*(torch.split(column[order], step.batch_rows) for column in (features, labels, weights)), strict=True)
        total, score, rate = torch.zeros(()), torch.zeros(()), 0.0
        for batch, target, weight in batches:
            if len(target) == 1 and rows > 1:
                continue  # BatchNorm has no variance over one row
            output = trunk(batch)
            if how.members > 1:
                output = output.reshape(len(target) * how.members, -1)
                target, weight = (column.repeat_interleave(how.members) for column in (target, weight))
            loss = _loss(output, target, weight, scale if how.task == "regression" else None)
            loss.backward()  # type: ignore[no-untyped-call]
            rate = float(falling.get_last_lr()[0])
            optimizer.step()
            optimizer.zero_grad()
            falling.step()
            made += 1
            total += loss.detach()
            score += _score(output.detach(), target, how.task)
        scalars = {"loss": float(total) / per_epoch, "metric": unit * float(score) / (rows * how.members), "learning_rate": rate}
        if not math.isfinite(scalars["loss"]):
            raise JobError("error", f"training loss must be finite, got {scalars['loss']}")
        how.track.scalars((epoch + 1) / epochs, made, scalars)
        if scalars["loss"] < step.enough_loss:
            break
    return scalars["loss"]


def _score(output: torch.Tensor, target: torch.Tensor, task: str) -> torch.Tensor:
    """Return the sum of the metric over a batch: 1 for each right class, minus the absolute error for numbers."""
    if task == "regression":
        return -(output.flatten() - target).abs().sum()
    logits = output.flatten(1)
    answers = logits.argmax(dim=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
    return (answers == target).sum()


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
