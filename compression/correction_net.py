"""The net that corrects scores, in torch: one hidden layer whose output begins at zero, so that nothing is learnt before it is."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .trainer import start_afresh


class CorrectionNet(nn.Module):
    """So many members side by side, trained in one pass: inputs (n, k) to what each adds to scores (n, members * columns).

    With `base` above 0 they give `base` times the last inputs too: the champion's scores, as they see them.
    """

    def __init__(self, inputs: int, shape: tuple[int, int, int], base: float) -> None:
        super().__init__()
        self.members, self.hidden, self.columns = shape
        self.first = nn.Linear(inputs, self.members * self.hidden)
        self.last = nn.Parameter(torch.zeros(self.members, self.hidden, self.columns))
        self.bias = nn.Parameter(torch.zeros(self.members, 1, self.columns))
        self.input_shape = (inputs,)
        self._base = base

    @property
    def trunk(self) -> nn.Module:
        """Return what is trained: all of it."""
        return self

    def start(self, seed: int) -> None:
        """Start the first layer, seeded; the last one stays at zero."""
        start_afresh(self, seed)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return corrected scores where there is a base, else the corrections."""
        hidden = functional.relu(self.first(inputs)).view(len(inputs), self.members, self.hidden)
        added = torch.baddbmm(self.bias, hidden.transpose(0, 1), self.last)
        if self._base:
            added = added + self._base * inputs[:, -self.columns :]
        return added.transpose(0, 1).reshape(len(inputs), -1)
