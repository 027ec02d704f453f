"""What every command shares: settings on demand, data on stdout, talk on stderr, errors turned into exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from .schemas.errors import DriftloopError
from .settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from .streams.transport import Transport

EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class Commands(TyperGroup):
    """Run commands; an error raised on purpose becomes one message on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the line names."""
        try:
            return super().invoke(ctx)
        except DriftloopError as problem:
            raise _end(ctx, problem, problem.exit_code) from None
        except TimeoutError as problem:
            raise _end(ctx, problem, EXIT_TIMEOUT) from None
        except KeyboardInterrupt:
            typer.echo("driftloop: interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of the pipe has gone; without this the interpreter complains again while it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except ModuleNotFoundError as problem:
            if problem.name not in WORKER_MODULES:
                raise
            hint = f'{problem.name} must be installed for this command: pip install "driftloop[worker]"'
            raise _end(ctx, DriftloopError(hint), 1) from None


WORKER_MODULES = ("torch", "onnxscript", "safetensors")


def _end(ctx: Any, problem: Exception, code: int) -> typer.Exit:
    state = ctx.find_root().obj
    if isinstance(state, State) and state.debug:
        traceback.print_exception(problem)
    typer.echo(f"driftloop: {problem}", err=True)
    return typer.Exit(code)


@dataclass
class State:
    """Hold the global options; settings are read when a command first asks for them."""

    settings_file: Path | None = None
    debug: bool = False
    quiet: bool = False
    closers: list[Any] = field(default_factory=list)

    @cached_property
    def settings(self) -> Settings:
        """Return the settings; raises SettingsInvalid."""
        return load_settings(self.settings_file)

    @cached_property
    def talk(self) -> Console:
        """Return the console on stderr."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Say one line on stderr."""
        if not self.quiet:
            typer.echo(text, err=True)

    def transport(self) -> Transport:
        """Return the transport to the broker of the settings."""
        from .streams.kafka import KafkaTransport

        return KafkaTransport(self.settings)


def state_of(context: typer.Context) -> State:
    """Return the global options of a command's context."""
    state = context.find_root().obj
    assert isinstance(state, State)
    return state


def print_json(value: Any) -> None:
    """Print one object as one line of JSON; stdout is flushed, so that a pipe sees each line at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: drawn on a terminal, tab-separated and never cut elsewhere."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in (columns, *cells):
            sys.stdout.write("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in line) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
