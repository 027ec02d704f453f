"""Reading recipes: plain data from settings, files and records into a checked Recipe, every problem at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from .errors import RecipeInvalid
from .events import JobRequested, Scalar
from .recipes import BUILT_IN, STEP_TYPES, Arm, Exit, GateRule, Recipe

MAX_NAME_CHARACTERS = 100
MAX_ARMS = 32
MAX_STEPS = 16
SHOWN_CHARACTERS = 80
OPTIONS = ("seed",)
Own = Mapping[str, Mapping[str, Any]]


def recipe_named(name: str, own: Own) -> Recipe:
    """Return the recipe of a name: one of `own`, plain data by name, or a built-in one; raises RecipeInvalid."""
    if name in own:
        return recipe_of(name, own[name])
    if name not in BUILT_IN:
        known = [*BUILT_IN, *sorted(set(own) - set(BUILT_IN))]
        raise RecipeInvalid([f"recipe must be one of {', '.join(known)}, got {_shown(name)}{_meant(name, known)}"])
    return BUILT_IN[name]


def recipe_asked(request: JobRequested, own: Own, *, take_whole: bool = True) -> Recipe:
    """Return the recipe of a request: the whole one it carries, else that of its name; raises RecipeInvalid, for its options too.

    Without `take_whole` the one it carries must be that of its name: a recipe brings its gate along.
    """
    check_options(request.options)
    if request.definition is None:
        return recipe_named(request.recipe, own)
    carried = recipe_of(request.recipe, request.definition)
    if not take_whole and carried != recipe_named(request.recipe, own):
        raise RecipeInvalid(
            [f"recipe {_shown(request.recipe)} must be as this worker's settings have it (worker.take_whole_recipes is off)"]
        )
    return carried


def recipe_of(name: str, definition: Mapping[str, Any]) -> Recipe:
    """Return the recipe in plain data: `arms` (name -> list of steps), `gate`, `exits`; raises RecipeInvalid with every problem.

    Of a built-in name it says only what differs: what is left out stays, and so do the rule's bounds that `gate` does not name.
    """
    problems: list[str] = []
    base = BUILT_IN.get(name)
    if not _is_name(name):
        problems.append(f"recipe name must be 1 to {MAX_NAME_CHARACTERS} printable characters, got {_shown(name)}")
    if not isinstance(definition, Mapping):
        raise RecipeInvalid([f"recipe must be a table of arms and a gate, got {_shown(definition)} (recipe {_shown(name)})"])
    where = f"recipe {_shown(name)}"
    problems += _unknown("recipe", definition, ("arms", "gate", "exits"), where)
    arms = base.arms if base is not None and "arms" not in definition else _arms(definition.get("arms"), where, problems)
    gate = _gate(definition.get("gate", {}), None if base is None else base.gate, where, problems)
    exits = _exits(definition.get("exits", () if base is None else base.exits), where, problems)
    if problems or gate is None:
        raise RecipeInvalid(problems)
    return Recipe(name=name, arms=arms, gate=gate, exits=exits)


def definition_of(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data with every value, so that a default that changes later changes nothing of it."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    del plain["name"]
    return plain


def definition_sent(recipe: Recipe) -> dict[str, Any] | None:
    """Return what a request for a recipe must carry: the whole of it, None where every worker knows it by its name."""
    return None if recipe == BUILT_IN.get(recipe.name) else definition_of(recipe)


def check_options(options: Mapping[str, Scalar]) -> None:
    """Raise RecipeInvalid for an option that no job has."""
    problems = [f"option must be one of {', '.join(OPTIONS)}, got {_shown(name)}" for name in options if name not in OPTIONS]
    seed = options.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        problems.append(f"option seed must be a whole number from 0, got {_shown(seed)}")
    if problems:
        raise RecipeInvalid(problems)


def _arms(plain: Any, where: str, problems: list[str]) -> dict[str, Arm]:
    if not isinstance(plain, Mapping) or not 1 <= len(plain) <= MAX_ARMS:
        problems.append(f"arms must be a table of 1 to {MAX_ARMS} arms by name, got {_shown(plain)} ({where})")
        return {}
    problems += [
        f"arm name must be 1 to {MAX_NAME_CHARACTERS} printable characters, got {_shown(name)} ({where})"
        for name in plain
        if not _is_name(name)
    ]
    return {str(name): _arm(steps, f"arm {_shown(name)} of {where}", problems) for name, steps in plain.items()}


def _arm(plain: Any, where: str, problems: list[str]) -> Arm:
    if not isinstance(plain, list | tuple) or not 1 <= len(plain) <= MAX_STEPS:
        problems.append(f"arm must be a list of 1 to {MAX_STEPS} steps, got {_shown(plain)} ({where})")
        return ()
    steps = []
    for number, step in enumerate(plain, 1):
        here = f"step {number} of {where}"
        name = step.get("type") if isinstance(step, Mapping) else None
        kind = STEP_TYPES.get(name) if isinstance(name, str) else None
        if kind is None:
            meant = _meant(name, STEP_TYPES)
            problems.append(
                f"step type must be one of {', '.join(STEP_TYPES)}, got {_shown(step if name is None else name)}{meant} ({here})"
            )
            continue
        values = _values(kind, {key: value for key, value in step.items() if key != "type"}, here, problems)
        steps.append(kind(**values))
    return tuple(steps)  # type: ignore[arg-type]  # the table holds no other types


def _gate(plain: Any, base: GateRule | None, where: str, problems: list[str]) -> GateRule | None:
    if not isinstance(plain, Mapping):
        problems.append(f"gate must be a table, got {_shown(plain)} ({where})")
        return None
    before = len(problems)
    values = _values(GateRule, plain, f"gate of {where}", problems)
    if base is not None:
        known = msgspec.structs.asdict(base)
        if {"min_gain", "max_loss"} & set(values):
            known["min_gain"] = known["max_loss"] = None
        values = known | values
    gate = GateRule(**values)
    if len(problems) == before and (gate.min_gain is None) == (gate.max_loss is None):
        problems.append(
            f"gate must name one of min_gain and max_loss, got {'neither' if gate.min_gain is None else 'both'} ({where})"
        )
    return gate


def _exits(plain: Any, where: str, problems: list[str]) -> tuple[Exit, ...]:
    known = get_args(Exit)
    if not isinstance(plain, list | tuple):
        problems.append(f"exits must be a list, got {_shown(plain)} ({where})")
        return ()
    for name in plain:
        if name not in known:
            problems.append(f"exit must be one of {', '.join(known)}, got {_shown(name)} ({where})")
    return tuple(name for name in plain if name in known)


def _values(kind: type[msgspec.Struct], plain: Mapping[Any, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """Return the checked parameters of a step or rule; what is wrong is added to `problems`."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    owner = str(kind.__struct_config__.tag or "gate")
    problems += _unknown(owner, plain, types, where)
    values = {}
    for name, value in plain.items():
        if name not in types:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{owner}.{name} must be finite, got {value} ({where})")
            continue
        try:
            values[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as problem:
            rule = str(problem).removeprefix("Expected ").partition(", got")[0].replace("`", "")
            problems.append(f"{owner}.{name} must be {rule}, got {_shown(value)} ({where})")
    return values


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable()


def _unknown(owner: str, plain: Mapping[Any, Any], known: Iterable[str], where: str) -> Iterator[str]:
    names = list(known)
    for name in plain:
        if name not in names:
            yield f"parameter of {owner} must be one of {', '.join(names) or 'none'}, got {_shown(name)}{_meant(name, names)} ({where})"


def _meant(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name)[:SHOWN_CHARACTERS], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | Mapping) and len(value) > 4:
        return f"one of {len(value)}"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
