"""The recipe that a command names: a name, or a file of JSON or TOML that says what differs from the recipe of its name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from ..schemas.errors import NotFound, RecipeInvalid
from ..schemas.recipe_reading import recipe_of
from ..schemas.recipes import Recipe
from ..settings import Settings

MAX_FILE_BYTES = 64 * 1024


def chosen_recipe(settings: Settings, text: str) -> Recipe:
    """Return the recipe that `text` names; a file's `name`, else its own, is the recipe's. Raises RecipeInvalid, NotFound."""
    path = Path(text)
    if path.suffix not in (".json", ".toml"):
        return settings.recipe(text)
    definition = _read(path)
    name = definition.pop("name", path.stem)
    if not isinstance(name, str):
        raise RecipeInvalid([f"name must be text, got {type(name).__name__} ({path})"])
    try:
        return recipe_of(name, definition)
    except RecipeInvalid as invalid:
        raise RecipeInvalid([f"{problem} ({path})" for problem in invalid.problems]) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise NotFound(f"recipe file must be readable, got {problem.strerror} ({path})") from problem
    if len(data) > MAX_FILE_BYTES:
        raise RecipeInvalid([f"recipe file must have at most {MAX_FILE_BYTES} bytes, got more ({path})"])
    kind = path.suffix[1:].upper()
    try:
        found = json.loads(data) if kind == "JSON" else tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise RecipeInvalid([f"recipe file must be {kind}, got {problem} ({path})"]) from problem
    if not isinstance(found, dict):
        raise RecipeInvalid([f"recipe file must hold a table, got {type(found).__name__} ({path})"])
    return found
