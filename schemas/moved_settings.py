"""Settings of `[repair]` that became parameters of recipes: where each of them went, so that files of earlier versions go on to work."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from .recipe_reading import definition_of
from .recipes import BUILT_IN, Finetune, Quantize

COMPRESSIONS = tuple(name for name, recipe in BUILT_IN.items() if any(isinstance(step, Quantize) for step in recipe.steps))
REPAIR = "repair"
TRAINING = str(Finetune.__struct_config__.tag)


class Moved(NamedTuple):
    """A setting's new place: a bound of these recipes' gates, or a parameter of the repair's training where there are none."""

    field: str
    gates: tuple[str, ...] = ()


MOVED = {
    "epochs": Moved("epochs"),
    "learning_rate": Moved("learning_rate"),
    "weight_decay": Moved("weight_decay"),
    "batch_rows": Moved("batch_rows"),
    "old_row_weight": Moved("old_weight"),
    "confidence": Moved("confidence", tuple(BUILT_IN)),
    "max_metric_loss": Moved("max_loss", COMPRESSIONS),
    "max_churn": Moved("max_churn", ("int8",)),
    "max_latency_ratio": Moved("max_latency_ratio", (REPAIR,)),
    "max_compressed_latency_ratio": Moved("max_latency_ratio", COMPRESSIONS),
    "max_size_ratio": Moved("max_size_ratio", (REPAIR,)),
    "worst_segment_loss": Moved("max_segment_loss", tuple(BUILT_IN)),
    "min_segment_rows": Moved("min_segment_rows", tuple(BUILT_IN)),
}


def move(tree: dict[str, Any], problems: list[str]) -> None:
    """Move what `[repair]` of a settings tree says of steps and gates into `[recipes]`; what a recipe says itself stays.

    A value that is no number is added to `problems`.
    """
    repair, recipes = tree.get(REPAIR), tree.setdefault("recipes", {})
    if not isinstance(repair, dict) or not isinstance(recipes, dict):
        return
    training: dict[str, float] = {}
    for name in [name for name in repair if name in MOVED]:
        value, to = _number(repair.pop(name)), MOVED[name]
        if value is None:
            problems.append(f"repair.{name} must be a number, of recipes.<name>: {to.field}, got another value")
        elif not to.gates:
            training[to.field] = value
        for recipe in to.gates if value is not None else ():
            gate = _table(recipes, recipe).setdefault("gate", {})
            if isinstance(gate, dict):
                gate.setdefault(to.field, value)
    if training:
        _table(recipes, REPAIR).setdefault("arms", _arms(training))


def _table(recipes: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the table of a recipe, out of JSON where a variable gave it; what is none is left to be told by who reads it."""
    held = recipes.setdefault(name, {})
    if isinstance(held, str):
        try:
            held = json.loads(held)
        except ValueError:
            return {}
        recipes[name] = held
    return held if isinstance(held, dict) else {}


def _arms(training: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Return the arms of the built-in repair with these parameters; an old weight of 0 leaves out the arm that has one."""
    arms: dict[str, list[dict[str, Any]]] = definition_of(BUILT_IN[REPAIR])["arms"]
    for name, steps in list(arms.items()):
        for step in steps:
            if step["type"] != TRAINING:
                continue
            with_old = step["old_weight"] > 0
            step |= {field: value for field, value in training.items() if with_old or field != "old_weight"}
            if with_old and not step["old_weight"]:
                del arms[name]
    return arms


def _number(value: Any) -> float | None:
    """Return a number, out of the text of a variable too."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else None
