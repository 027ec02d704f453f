"""What every command shares: settings on demand, data on stdout, talk on stderr, errors turned into exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
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


OUTPUT_ERRORS = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)
# Options of the root that people write after the command, where no command knows them.
ROOT_OPTIONS = ("--settings", "--debug", "--quiet", "-q", "--version")


class Commands(TyperGroup):
    """The commands; an error raised on purpose becomes one message on stderr and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; a reader of the pipe that has gone is no failure."""
        open_streams()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            # Help is written by rich, which ends with 1 where its reader has seen enough.
            if not isinstance(end.__context__, BrokenPipeError):
                raise
            silence_stdout()
            raise SystemExit(0) from None

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the options of the root, `--help` among them."""
        try:
            return super().make_context(*args, **kwargs)
        except OSError as problem:
            raise _end(None, _output_problem(problem), 1) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the line names."""
        try:
            return self._invoke(ctx)
        except ModuleNotFoundError as problem:
            if problem.name not in WORKER_MODULES:
                raise
            hint = f'{problem.name} must be installed for this command: pip install "driftloop[worker]"'
            raise _end(ctx, DriftloopError(hint), 1) from None
        except OSError as problem:
            raise _end(ctx, _output_problem(problem), 1) from None

    def _invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
        except DriftloopError as problem:
            raise _end(ctx, problem, problem.exit_code) from None
        except TimeoutError as problem:
            raise _end(ctx, problem, EXIT_TIMEOUT) from None
        except KeyboardInterrupt:
            typer.echo("driftloop: interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of the pipe has gone; without this the interpreter complains again while it closes stdout.
            silence_stdout()
            raise typer.Exit(0) from None
        except Exception as problem:
            # An option that the command does not know; its error's class lies elsewhere in each version of typer.
            option = getattr(problem, "option_name", None)
            if option in ROOT_OPTIONS:
                problem.message += f" It belongs before the command: driftloop {option} ... {ctx.invoked_subcommand} ..."  # type: ignore[attr-defined]
            raise
        return done


WORKER_MODULES = ("torch", "onnxscript", "safetensors")


def open_streams() -> None:
    """Put something behind the standard streams that are closed, and let a terminal without a character show another one.

    Otherwise the next file or socket takes a closed stream's number, and what is printed goes into it.
    """
    # Opened for reading: who writes to a stdout that is closed learns it.
    for number, name, mode, flags in (
        (0, "stdin", "r", os.O_RDONLY),
        (1, "stdout", "w", os.O_RDONLY),
        (2, "stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Send what is still to be printed nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_problem(problem: OSError) -> DriftloopError:
    """Return what to say of a file or stream that fails; a stdout that takes nothing is not written to again."""
    why = problem.strerror or str(problem)
    if problem.filename is not None:
        return DriftloopError(f"file must be readable and writable, got {why} ({problem.filename})")
    if problem.errno not in OUTPUT_ERRORS:
        return DriftloopError(f"the machine must do as asked, got {type(problem).__name__}: {why}")
    silence_stdout()
    return DriftloopError(f"output must be writable, got {why}")


def _end(ctx: Any, problem: Exception, code: int) -> typer.Exit:
    state = ctx.find_root().obj if ctx is not None else None
    if isinstance(state, State) and state.debug:
        typer.echo(state.scrubbed("".join(traceback.format_exception(problem))), err=True, nl=False)
    text = f"driftloop: {problem}"
    typer.echo(state.scrubbed(text) if isinstance(state, State) else text, err=True)
    return typer.Exit(code)


@dataclass
class State:
    """The global options; settings are read when a command first asks for them."""

    settings_file: Path | None = None
    debug: bool = False
    quiet: bool = False
    closers: list[Any] = field(default_factory=list)

    @cached_property
    def settings(self) -> Settings:
        """Return the settings; raises SettingsInvalid."""
        return load_settings(self.settings_file)

    def scrubbed(self, text: str) -> str:
        """Return a message without the secrets of the settings, if any were read."""
        settings = self.__dict__.get("settings")
        return settings.scrubbed(text) if isinstance(settings, Settings) else text

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
    sys.stdout.flush()
    # JSON is UTF-8 whatever the terminal's encoding is.
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
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
