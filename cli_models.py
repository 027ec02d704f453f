"""`driftloop model`: register, list, show, promote, roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .cli_console import State

if TYPE_CHECKING:
    from .streams.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Register models and say which version serves.")


def _registry(state: State) -> Registry:
    from .streams.registry import Registry

    return Registry(state.settings, state.transport())
