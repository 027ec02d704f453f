"""How many rows of a job are held out, and how many a recipe needs; known before any model is opened."""

from __future__ import annotations

import math

from ..schemas.config import RepairConfig
from ..schemas.errors import JobError
from ..schemas.recipes import Recipe


def held_out(count: int, config: RepairConfig) -> int:
    """Return how many of `count` rows, the newest, are held out."""
    return max(config.min_holdout_rows, round(count * config.holdout_share))


def check_enough(count: int, recipe: Recipe, config: RepairConfig, notes: tuple[str, ...] = ()) -> None:
    """Raise JobError where `count` rows leave too few to train on, or none to calibrate on, beside those held out."""
    needed = config.min_holdout_rows if recipe.trains else 1
    if count - held_out(count, config) < needed:
        least = max(config.min_holdout_rows + needed, math.ceil(needed / (1 - config.holdout_share)))
        why = f" ({'; '.join(notes)})" if notes else ""
        raise JobError("error", f"labelled rows must be at least {least} for recipe {recipe.name}, got {count}{why}")
