"""What the commands that read a table share: the options for its columns and its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .schemas.events import Task
    from .streams.table_columns import Wanted

TaskOption = Annotated[str, typer.Option("--task", help="classification or regression (default: by the labels, told on stderr).")]
FeaturesOption = Annotated[
    str,
    typer.Option("--features", help="Columns that are features, by commas (default: all but label, prediction and row counters)."),
]
IgnoreOption = Annotated[str, typer.Option("--ignore", help="Columns that are no features, by commas, such as ids and times.")]


def task_named(text: str) -> Task | None:
    """Return the task of an option, None where it is not given; raises typer.BadParameter."""
    if text in ("classification", "regression"):
        return text  # type: ignore[return-value]
    if text:
        raise typer.BadParameter(f"task must be classification or regression, got {text!r}", param_hint="--task")
    return None


def wanted_columns(label: str, output: str | None, features: str, ignored: str) -> Wanted:
    """Return the columns that the options name."""
    from .streams.table_columns import Wanted, names_in

    return Wanted(label, output, names_in(features), names_in(ignored))
