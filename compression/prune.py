"""The step `prune`: whole channels less, those whose weights are smallest, in every layer but the last; widths stay multiples."""

from __future__ import annotations

import warnings

from ..schemas.errors import JobError, ModelUnsupported
from ..schemas.recipes import Prune
from .job_context import JobContext
from .workpiece import Workpiece


def prune(step: Prune, piece: Workpiece, context: JobContext) -> Workpiece:
    """Return the model with so many channels less; it answers worse until it is trained.

    Raises ModelUnsupported for a model that cannot be trained or has nothing to prune, JobError where torch-pruning is missing.
    """
    try:
        import torch_pruning
    except ImportError as problem:
        raise JobError("error", "torch-pruning must be installed for the step prune (pip install driftloop[worker])") from problem
    import torch
    from torch import nn

    from .export import write_back

    base = context.trainable(piece)
    twin = base.trainable.twin()
    layers = [layer for layer in twin.module.modules() if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)]
    before = sum(weight.numel() for weight in twin.module.parameters())
    context.track.progress(0.0, f"pruning {step.ratio:.0%} of the channels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.BasePruner(
                twin.module,
                torch.zeros((2, *twin.input_shape)),
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=step.ratio,
                # What the last layer gives are the scores.
                ignored_layers=layers[-1:],
                round_to=step.multiple,
            ).step()
    except Exception as problem:  # it raises whatever its parts raise on a graph that they do not know
        raise ModelUnsupported(f"model must be one that can be pruned: {type(problem).__name__}: {str(problem)[:300]}") from problem
    after = sum(weight.numel() for weight in twin.module.parameters())
    if after >= before:
        wanted = f"{step.ratio:.0%} of the channels can be taken and a multiple of {step.multiple} is left"
        raise ModelUnsupported(f"model must have a layer before the last where {wanted}, got none to prune")
    return base.changed(write_back(base.model, twin, context.data.training.features, reshaped=True))
