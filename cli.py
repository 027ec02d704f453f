"""The `driftloop` command: global options, the long-running commands and the local ones; sub-commands live in cli_*.py."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from . import __version__, cli_alerts, cli_broker, cli_jobs, cli_models, cli_topics
from .cli_console import Commands, JsonFlag, State, print_json, print_table, state_of
from .cli_tables import FeaturesOption, IgnoreOption, TaskOption, task_named, wanted_columns

EPILOG = (
    "Exit codes: 0 done · 1 failure · 2 wrong usage, settings or input · 3 not found · 4 conflict · 5 no broker answers · "
    "6 the gate rejected the candidate · 124 timed out · 130 interrupted"
)

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_broker.app, name="broker")
app.add_typer(cli_models.app, name="model")
app.add_typer(cli_jobs.app, name="jobs")
app.add_typer(cli_alerts.app, name="alerts")
cli_topics.add_commands(app)

export = typer.Typer(no_args_is_help=True, help="Write schemas for other tools.")
app.add_typer(export, name="export")


def main() -> None:
    """Run the command line; never returns."""
    app(prog_name="driftloop")


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"driftloop {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    settings: Annotated[Path | None, typer.Option(help="TOML file (default: ./driftloop.toml if there).")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
    version: Annotated[bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = None,
) -> None:
    """Watch models through Kafka, know when they drift, and repair them.

    Try it: [bold]driftloop demo[/bold]
    """
    context.obj = State(settings, debug=debug, quiet=quiet)
    # A command says what failed in one message of its own; `serve` adds a handler that shows the log.
    logging.getLogger("driftloop").addHandler(logging.NullHandler())


@app.command()
def serve(
    context: typer.Context,
    roles: Annotated[str, typer.Option(help="Comma-separated: monitor, control, worker.")] = "monitor,control,worker",
) -> None:
    """Run the service until it is stopped (SIGTERM or Ctrl-C).

    Example: driftloop serve --roles monitor,control
    """
    import threading

    from .cli_serve import stop_on_signals, wanted_roles

    wanted = wanted_roles(roles)
    settings = state_of(context).settings
    from .streams.serve import serve as run_service

    stop = threading.Event()
    stop_on_signals(stop)
    run_service(settings, wanted, stop)


@app.command()
def demo(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help="CSV[.gz] table to play (default: a made stream with a known drift).")] = None,
    label: Annotated[str | None, typer.Option(help="Name of the label column of --data: classes or numbers.")] = None,
    task: TaskOption = "",
    features: FeaturesOption = "",
    ignore: IgnoreOption = "",
    train_rows: Annotated[
        int | None, typer.Option(min=200, help="Rows the first model is trained on (default: 10000, or 40 %).")
    ] = None,
    label_delay: Annotated[int, typer.Option(min=0, help="Rows by which labels follow their predictions.")] = 100,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Play so many rows a second, and never wait for a repair.")] = None,
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("driftloop-demo/accuracy.png"),
    memory: Annotated[bool, typer.Option("--memory", help="Play in memory even where a broker could be had.")] = False,
    json: JsonFlag = False,
) -> None:
    """Watch a model drift, get repaired and recover, on this machine.

    Uses the broker of the settings if one is named, else starts one, else plays in memory.

    Example: driftloop demo --data table.csv.gz --label y --train-rows 10000 --json
    """
    if (data is None) != (label is None):
        raise typer.BadParameter("--data and --label belong together")
    if data is None and (task or features or ignore):
        raise typer.BadParameter("--task, --features and --ignore are of a table: they need --data and --label")
    from .cli_demo import print_report
    from .cli_serve import sigterm_interrupts
    from .streams.demo import DemoConfig, run_demo

    state = state_of(context)
    columns = None if label is None else wanted_columns(label, None, features, ignore)
    config = DemoConfig(data, columns, task_named(task), train_rows, label_delay, rate, plot, memory)
    with sigterm_interrupts():
        report = run_demo(state.settings, config, state.talk)
    if json:
        print_json(report)
    else:
        print_report(report, plot)


@app.command()
def replay(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="NDJSON[.gz] events or CSV[.gz] table; - for standard input.")],
    label: Annotated[str | None, typer.Option(help="Label column of a CSV table.")] = None,
    prediction: Annotated[str | None, typer.Option(help="Prediction column of a CSV table; other columns are features.")] = None,
    task: TaskOption = "",
    features: FeaturesOption = "",
    ignore: IgnoreOption = "",
    model: Annotated[str, typer.Option(help="Name of the model of a CSV table.")] = "model",
    batch_size: Annotated[int, typer.Option(min=1, help="Records taken in at once; the output does not depend on it.")] = 5_000,
    summary: Annotated[bool, typer.Option("--summary", help="Print one object with counts and metrics instead of events.")] = False,
) -> None:
    """Run the monitor over a file, with no broker; drift events go to stdout as NDJSON.

    Example: driftloop replay log.csv.gz --label y --prediction p --summary
    """
    if (label is None) != (prediction is None):
        raise typer.BadParameter("--label and --prediction belong together")
    if label is None and (task or features or ignore):
        raise typer.BadParameter("--task, --features and --ignore are of a CSV table: they need --label and --prediction")
    from .streams.replay import ReplayConfig, replay_file

    state = state_of(context)
    columns = None if label is None else wanted_columns(label, prediction, features, ignore)
    config = ReplayConfig(file, columns, task_named(task), model, batch_size)
    counts, dropped = replay_file(config, state.settings.monitor, _silent if summary else print_json, state.say)
    for drop in dropped:
        state.say(f"line {drop.line}: {drop.letter.disposition}: {drop.letter.message}")
    if counts.dead_lettered:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(counts.dead_lettered.items()))
        state.say(f"{counts.dead_lettered.total()} dead letters: {kinds}")
    if summary:
        print_json(counts.summary())


def _silent(told: object) -> None:
    """Take a drift event and say nothing of it."""


@app.command()
def compress(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    rows: Annotated[str, typer.Option(help="CSV[.gz] table: features in the model's order by name or place, and --label.")],
    out: Annotated[Path, typer.Option(help="Folder for the compressed model and its manifest.")],
    recipe: Annotated[str, typer.Option(help="Name, or a JSON or TOML file.")] = "int8",
    label: Annotated[str, typer.Option(help="Label column of --rows: classes, or numbers for a regression.")] = "y",
    classes: Annotated[str, typer.Option(help="Classes in the order of the scores, by commas (default: sorted labels).")] = "",
    task: TaskOption = "",
    features: FeaturesOption = "",
    ignore: IgnoreOption = "",
    json: JsonFlag = False,
) -> None:
    """Compress a model file, judged on labelled rows; no broker needed. Exit code 6: the gate rejected it.

    Example: driftloop compress model.onnx --recipe int8 --rows rows.csv.gz --out small/
    """
    from .schemas.errors import GateRejected
    from .streams.compress_file import CompressConfig, compress_file, verdict_table
    from .streams.compress_fit import Wish
    from .streams.recipe_file import chosen_recipe

    state = state_of(context)
    wish = Wish(rows, wanted_columns(label, None, features, ignore), task_named(task), classes)
    config = CompressConfig(model, chosen_recipe(state.settings, recipe), wish, out)
    with state.talk.status("compressing") as status:
        told = compress_file(state.settings, config, lambda news: status.update(f"{news.step} {news.fraction:.0%}"))
    for note in told["notes"]:
        state.say(note)
    if json:
        print_json(told)
    else:
        print_table(("", "before", "after"), verdict_table(told["verdict"]))
        state.say(f"written: {told['model']}" if told["model"] else "nothing is written")
    if not told["promoted"]:
        raise GateRejected("the gate rejected the candidate: " + "; ".join(told["reasons"]))


@export.command("json-schema")
def json_schema(
    event: Annotated[str | None, typer.Argument(help="One event, such as PredictionMade (default: all).")] = None,
) -> None:
    """Print the JSON Schema of the events.

    Example: driftloop export json-schema LabelArrived
    """
    from .schemas.json_schema import json_schema as schema_of

    print_json(schema_of(event))


@app.command()
def doctor(context: typer.Context, json: JsonFlag = False) -> None:
    """Check this machine, the settings, the broker, the topics and the store; the exit code is that of the first thing wrong.

    Example: driftloop doctor --json
    """
    from .streams.doctor import examine

    state = state_of(context)
    findings = examine(state.settings)
    failed = [finding for finding in findings if finding.verdict == "fail"]
    if json:
        print_json({"ok": not failed, "checks": findings})
    else:
        print_table(("check", "verdict", "found", "what to do"), [(f.check, f.verdict, f.found, f.advice) for f in findings])
    if failed:
        raise typer.Exit(failed[0].exit_code)
