"""One frozen Settings from TOML and environment, validated whole: every problem is listed at once.

Precedence: environment (`DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS`), then the TOML file, then defaults. The `[kafka]` table takes any
librdkafka property, dots and all; in a variable's name a dot is written as an underscore.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from .schemas.config import (
    DataPlaneConfig,
    MonitorConfig,
    PolicyConfig,
    RepairConfig,
    Section,
    StoreConfig,
    TopicsConfig,
    WorkerConfig,
)
from .schemas.errors import SettingsInvalid

PREFIX = "DRIFTLOOP_"
DEFAULT_FILE = "driftloop.toml"
FILE_VARIABLE = "DRIFTLOOP_SETTINGS"
DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
SECRET_WORDS = ("password", "secret", "token", "key.pem", "sasl.jaas")


class Settings(Section):
    """Hold every setting; `kafka` maps librdkafka properties to text and is left out of the repr, since it holds passwords."""

    kafka: dict[str, str] = Field(default_factory=dict, repr=False)
    topics: TopicsConfig = TopicsConfig()
    monitor: MonitorConfig = MonitorConfig()
    data_plane: DataPlaneConfig = DataPlaneConfig()
    policy: PolicyConfig = PolicyConfig()
    worker: WorkerConfig = WorkerConfig()
    repair: RepairConfig = RepairConfig()
    store: StoreConfig = StoreConfig()

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
        plain["kafka"] = {name: "****" if _is_secret(name) else value for name, value in self.kafka.items()}
        return plain


def load_settings(file: str | Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings from `file` (default: $DRIFTLOOP_SETTINGS, then ./driftloop.toml if there) and `environment`.

    Raises SettingsInvalid with every problem of both.
    """
    variables = os.environ if environment is None else environment
    problems: list[str] = []
    tree = _read_file(file, variables, problems)
    _overlay(tree, variables, problems)
    kafka = tree.get("kafka")
    if isinstance(kafka, dict):
        tree["kafka"] = {name: _plain(value) for name, value in _flatten(kafka).items()}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as invalid:
        problems += [_sentence(error) for error in invalid.errors(include_url=False)]
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
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as problem:
        problems.append(f"settings file must be readable, got {problem.strerror} ({path})")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        problems.append(f"settings file must be TOML, got {problem} ({path})")
    return {}


def _overlay(tree: dict[str, Any], variables: Mapping[str, str], problems: list[str]) -> None:
    for name in sorted(variables):
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        if not name.startswith(PREFIX) or not key:
            continue
        if section not in Settings.model_fields:
            problems.append(f"variable must name a section, one of {', '.join(Settings.model_fields)}, got {section!r} ({name})")
            continue
        table = tree.setdefault(section, {})
        if isinstance(table, dict):
            table[key.replace("_", ".") if section == "kafka" else key] = variables[name]


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


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where} is no setting{_suggestion(error['loc'])}"
    got = "****" if _is_secret(where) else repr(error["input"])
    return f"{where} {error['msg'][0].lower()}{error['msg'][1:]}, got {got}"


def _suggestion(loc: tuple[Any, ...]) -> str:
    known: list[str] = list(Settings.model_fields)
    if len(loc) > 1:
        section = Settings.model_fields.get(str(loc[0]))
        known = list(getattr(section.annotation, "model_fields", {})) if section is not None else []
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _is_secret(name: str) -> bool:
    return any(word in name.lower().replace("_", ".") for word in SECRET_WORDS)
