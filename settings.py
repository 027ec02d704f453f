"""One frozen Settings from TOML and environment, validated whole: every problem is listed at once.

Precedence: environment (`DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS`), then the TOML file, then defaults. The `[kafka]` table takes any
librdkafka property, dots and all; in a variable's name a dot is written as an underscore.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from .schemas.config import (
    ControlConfig,
    DataPlaneConfig,
    ModelsConfig,
    MonitorConfig,
    PolicyConfig,
    RepairConfig,
    Section,
    ServiceConfig,
    SigningConfig,
    StoreConfig,
    TopicsConfig,
    WorkerConfig,
)
from .schemas.errors import RecipeInvalid, SettingsInvalid
from .schemas.moved_settings import move
from .schemas.recipe_reading import definition_sent, recipe_named, recipe_of
from .schemas.recipes import Recipe
from .schemas.redaction import is_secret, secrets_of, shown_property, without

PREFIX = "DRIFTLOOP_"
DEFAULT_FILE = "driftloop.toml"
FILE_VARIABLE = "DRIFTLOOP_SETTINGS"
DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
MAX_FILE_BYTES = 64 * 1024  # what a parser does with dotted keys grows as the square of their length
MAX_DEPTH = 8
MAX_SHOWN = 80
LINE_BREAK = "\n"
# What people write with one underscore, or with none of the section's name; Kubernetes makes variables of services' names that look alike.
KNOWN_PROPERTIES = ("bootstrap.servers", "security.protocol", "sasl.", "ssl.")


class Settings(Section):
    """Every setting; `kafka` maps librdkafka properties to text and is left out of the repr, since it holds passwords."""

    kafka: dict[str, str] = Field(default_factory=dict, repr=False)
    topics: TopicsConfig = TopicsConfig()
    monitor: MonitorConfig = MonitorConfig()
    data_plane: DataPlaneConfig = DataPlaneConfig()
    control: ControlConfig = ControlConfig()
    service: ServiceConfig = ServiceConfig()
    policy: PolicyConfig = PolicyConfig()
    worker: WorkerConfig = WorkerConfig()
    repair: RepairConfig = RepairConfig()
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    store: StoreConfig = StoreConfig()
    models: ModelsConfig = ModelsConfig()
    signing: SigningConfig = SigningConfig()

    @model_validator(mode="after")
    def _report_what_repairs_wait_for(self) -> Self:
        """Let the monitor report the counts of labelled rows at which the policy asks for repairs: it hears of no others."""
        known, policy = self.monitor.milestones, self.policy
        missing = {policy.first_rows, policy.second_rows} - set(known) if policy.enabled else set()
        if missing:
            milestones = tuple(sorted({*known, *missing}))
            self.__dict__["monitor"] = self.monitor.model_copy(update={"milestones": milestones})
        return self

    @field_validator("recipes", mode="before")
    @classmethod
    def _read_recipes(cls, value: Any) -> Any:
        """Take a recipe as JSON, as a variable gives it (`DRIFTLOOP_RECIPES__REPAIR`)."""
        if not isinstance(value, dict):
            return value
        return {name: json.loads(one) if isinstance(one, str) else one for name, one in value.items()}

    @model_validator(mode="after")
    def _check_recipes(self) -> Self:
        """Tell wrong recipes, and a policy that asks for one that is not there, before anything starts."""
        problems: list[str] = []
        for name, definition in self.recipes.items():
            try:
                recipe_of(name, definition)
            except RecipeInvalid as invalid:
                problems += invalid.problems
        if self.policy.recipe not in self.recipes:
            try:
                recipe_named(self.policy.recipe, self.recipes)
            except RecipeInvalid as invalid:
                problems += [f"policy.{problem}" for problem in invalid.problems]
        if problems:
            raise ValueError(LINE_BREAK.join(problems))
        return self

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a name, of these settings or built in; raises RecipeInvalid."""
        return recipe_named(name, self.recipes)

    def definition(self, name: str) -> dict[str, Any] | None:
        """Return what a request for the recipe of a name must carry; raises RecipeInvalid."""
        return definition_sent(self.recipe(name))

    @property
    def bootstrap_servers(self) -> str:
        """Return the broker's address, the local default where none is named."""
        return self.kafka.get("bootstrap.servers", DEFAULT_BOOTSTRAP)

    @property
    def names_a_broker(self) -> bool:
        """Return True if file or environment name a broker."""
        return "bootstrap.servers" in self.kafka

    def topic(self, kind: str) -> str:
        """Return the full name of a topic."""
        return self.topics.prefix + kind

    @property
    def monitor_group(self) -> str:
        """Return the consumer group of the data plane; with the prefix, since a slot of one deployment must not fence another's."""
        return self.topics.prefix + self.data_plane.group

    @property
    def worker_group(self) -> str:
        """Return the consumer group of the workers."""
        return self.topics.prefix + self.worker.group

    def redacted(self) -> dict[str, Any]:
        """Return all settings with secrets replaced by stars."""
        plain = self.model_dump(mode="json")
        plain["kafka"] = {name: shown_property(name, value) for name, value in self.kafka.items()}
        plain["store"]["url"] = self.store.shown
        return plain

    def scrubbed(self, text: str) -> str:
        """Return a text of another library without the secrets of these settings."""
        return without(text, secrets_of(self.store.url, self.kafka))


def load_settings(file: str | Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings from `file` (default: $DRIFTLOOP_SETTINGS, then ./driftloop.toml if there) and `environment`.

    Raises SettingsInvalid with every problem of both.
    """
    variables = os.environ if environment is None else environment
    problems: list[str] = []
    tree = _read_file(file, variables, problems)
    _overlay(tree, variables, problems)
    move(tree, problems)
    kafka = tree.get("kafka")
    if isinstance(kafka, dict):
        tree["kafka"] = {name: _plain(value) for name, value in _flatten(kafka).items()}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as invalid:
        problems += [line for error in invalid.errors(include_url=False) for line in _sentences(error)]
        raise SettingsInvalid(problems) from None
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _read_file(file: str | Path | None, variables: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    named = file if file is not None else variables.get(FILE_VARIABLE)
    path = Path(named) if named is not None else Path(DEFAULT_FILE)
    if named is None and not path.exists():
        return {}
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            problems.append(f"settings file must have at most {MAX_FILE_BYTES} bytes, got more ({path})")
            return {}
        tree = tomllib.loads(data.decode("utf-8-sig"))
        _check_tree(tree)
    except OSError as problem:
        problems.append(f"settings file must be readable, got {problem.strerror} ({path})")
    except RecursionError:
        problems.append(f"settings file must be nested at most {MAX_DEPTH} deep, got more ({path})")
    except ValueError as problem:
        # Of a line that it refuses, the parser names the place and never the text. Python's own limit on digits is a ValueError too.
        problems.append(f"settings file must be TOML, got {problem} ({path})")
    else:
        return tree
    return {}


def _check_tree(tree: dict[str, Any]) -> None:
    """Raise RecursionError where values lie too deep for what reads them later, ValueError for a number that TOML has not."""
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH + 1):
        level = [value for held in level for value in (held.values() if isinstance(held, dict) else held)]
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in level):
            raise ValueError("a whole number beyond 64 bits")
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return
    raise RecursionError


def _overlay(tree: dict[str, Any], variables: Mapping[str, str], problems: list[str]) -> None:
    for name in sorted(variables):
        if not name.startswith(PREFIX):
            continue
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        if not key:
            problems += [f"variable must have two underscores behind its section: {meant}, got {name}" for meant in _meant(name)]
            continue
        if section not in Settings.model_fields:
            problems.append(f"variable must name a section, one of {', '.join(Settings.model_fields)}, got {section!r} ({name})")
            continue
        table = tree.setdefault(section, {})
        if isinstance(table, dict):
            table[key.replace("_", ".") if section == "kafka" else key] = variables[name]


def _meant(name: str) -> list[str]:
    """Return the variable that one of ours was meant to be, if it was."""
    rest = name.removeprefix(PREFIX).lower()
    for section, field in Settings.model_fields.items():
        # Without its section only a name of several words is ours beyond doubt.
        key = rest.removeprefix(f"{section}_") if rest.startswith(f"{section}_") else rest if "_" in rest else ""
        keys = getattr(field.annotation, "model_fields", {})
        if key in keys or (section == "kafka" and key.replace("_", ".").startswith(KNOWN_PROPERTIES)):
            return [f"{PREFIX}{section}__{key}".upper()]
    return []


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _sentences(error: Any) -> list[str]:
    """Return what an error says; one of the settings as a whole holds a line for every problem."""
    return (
        str(error["ctx"]["error"]).split(LINE_BREAK) if error["type"] == "value_error" and not error["loc"] else [_sentence(error)]
    )


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where} is no setting{_suggestion(error['loc'])}"
    return f"{where} {error['msg'][0].lower()}{error['msg'][1:]}, got {_shown(error['loc'], error['input'])}"


def _shown(loc: tuple[Any, ...], value: Any) -> str:
    """Return a refused value as it may be shown: [kafka] and [store] hold secrets, and a whole table may be theirs."""
    if len(loc) < 2 or loc[0] in ("kafka", "store") or is_secret(".".join(map(str, loc))) or isinstance(value, dict | list):
        return f"a value of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _suggestion(loc: tuple[Any, ...]) -> str:
    known: list[str] = list(Settings.model_fields)
    if len(loc) > 1:
        section = Settings.model_fields.get(str(loc[0]))
        known = list(getattr(section.annotation, "model_fields", {})) if section is not None else []
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
