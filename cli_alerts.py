"""`driftloop alerts`: list the alerts, end one by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_console import JsonFlag, print_json, print_table, state_of

app = typer.Typer(no_args_is_help=True, help="Look at alerts and resolve them.")

COLUMNS = ("alert_id", "model", "state", "severity", "summary")


@app.command("ls")
def list_alerts(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only alerts of this model.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the alerts that are open.

    Example: driftloop alerts ls --json
    """
    from .streams.alert_view import read_alerts

    state = state_of(context)
    views = [
        view
        for view in read_alerts(state.transport(), state.settings).values()
        if (model is None or view.model == model) and (every or view.state != "resolved")
    ]
    if json:
        print_json(views)
    else:
        print_table(COLUMNS, [[getattr(view, column) for column in COLUMNS] for view in views])


@app.command()
def resolve(
    context: typer.Context,
    alert_id: Annotated[str, typer.Argument(help="As `driftloop alerts ls` gives it.")],
    note: Annotated[str, typer.Option(help="Why: it is told with the end of the alert.")] = "resolved by hand",
    json: JsonFlag = False,
) -> None:
    """End an alert by hand; recovery and a repair that restores the level end it without. Exit code 3 if there is none of this id.

    Example: driftloop alerts resolve drift-0123456789abcdef --note "new price list"
    """
    from .streams.alert_view import resolve as resolve_alert

    state = state_of(context)
    event = resolve_alert(state.transport(), state.settings, alert_id, note)
    if json:
        print_json(event)
    else:
        typer.echo(f"{event.alert_id}\tresolved")
