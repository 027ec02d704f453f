"""`driftloop init`, `produce`, `watch`: topics and what is on them."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_console import JsonFlag, print_json, print_table, state_of


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the root."""
    app.command()(init)
    app.command()(produce)
    app.command()(watch)


def init(
    context: typer.Context,
    print_acls: Annotated[
        bool, typer.Option("--print-acls", help="Only print the commands that give each role its rights; no broker is asked.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Create the topics, or check that those there are as driftloop needs them. Exit code 4 where one differs.

    Example: driftloop init
    """
    from .streams.acls import acl_lines
    from .streams.topics import ensure_topics

    state = state_of(context)
    if print_acls:
        for line in acl_lines(state.settings):
            typer.echo(line)
        return
    created = ensure_topics(state.settings)
    if json:
        print_json({"created": list(created), "prefix": state.settings.topics.prefix})
        return
    for name in created:
        typer.echo(name)
    state.say(f"{len(created)} topics created" if created else "all topics are there and as they must be")


def produce(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="NDJSON[.gz] file of predictions and labels; - for standard input.")] = "-",
    json: JsonFlag = False,
) -> None:
    """Send predictions and labels, one JSON event a line; a line tells its topic by `type` or by its fields.

    Example: echo '{"model":"m","prediction_id":"1","version":1,"output":0}' | driftloop produce
    """
    from .streams.producing import produce_lines

    state = state_of(context)
    sent = produce_lines(state.transport(), state.settings, file)
    if json:
        print_json(sent)
    else:
        print_table(tuple(sent), [tuple(sent.values())])


def watch(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="Topic by kind, such as drift, or by full name.")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what is there already.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds; exit code 124 if --count is not reached.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The output is NDJSON with or without this.", hidden=True)] = False,
) -> None:
    """Print a topic as NDJSON: one record a line, with `_partition` and `_offset`.

    Example: driftloop watch drift --from-beginning --timeout 5
    """
    from .streams.watching import Watch, topic_kind
    from .streams.watching import watch as watch_topic

    state = state_of(context)
    what = Watch(topic_kind(topic, state.settings), from_beginning, count, timeout)
    for told in watch_topic(state.transport(), state.settings, what):
        print_json(told)
