"""`driftloop jobs`: ask for a repair, list the jobs, look at one."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_console import JsonFlag, State, print_json, print_table, state_of

if TYPE_CHECKING:
    from .schemas.events import JobRequested
    from .streams.watching import JobView

app = typer.Typer(no_args_is_help=True, help="Ask for repairs and follow them.")

COLUMNS = ("job_id", "model", "recipe", "state", "version", "arm", "duration_s")


@app.command()
def submit(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    recipe: Annotated[str, typer.Option(help="Name, or a JSON or TOML file.")] = "repair",
    job_id: Annotated[str | None, typer.Option(help="Asking twice with one id is asking once (default: a new id).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 6 if rejected, 1 if failed.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait; exit code 124 after that.")] = 600.0,
    json: JsonFlag = False,
) -> None:
    """Ask a worker to repair or compress the champion, with the newest labelled rows.

    Example: driftloop jobs submit fraud --recipe repair --wait
    """
    from .schemas.events import JobRequested
    from .schemas.recipe_reading import definition_sent
    from .streams.outgoing import publish
    from .streams.recipe_file import chosen_recipe

    state = state_of(context)
    asked = chosen_recipe(state.settings, recipe)
    settings, transport = state.settings, state.transport()
    chosen = f"user-{uuid.uuid4().hex[:12]}" if job_id is None else job_id
    event = JobRequested(model=model, job_id=chosen, recipe=asked.name, requested_by="user", definition=definition_sent(asked))
    _check(state, event)
    transport.end_offsets(settings.topic("jobs"))
    publish(settings, transport, event)
    state.say(f"job {chosen} requested")
    view = _wait(state, chosen, timeout) if wait else None
    if json:
        print_json(view if view is not None else {"job_id": chosen, "model": model, "recipe": asked.name, "state": "requested"})
    else:
        typer.echo(chosen if view is None else f"{chosen}\t{view.state}")
    if view is not None:
        _end(view)


def _check(state: State, event: JobRequested) -> None:
    """Refuse a job that would fail: a bad id as a wrong argument, an unknown model as not found."""
    from .schemas.control_events import check_control
    from .schemas.errors import Conflict, EventInvalid
    from .streams.publishing import known_model
    from .streams.registry import read_registry

    try:
        check_control(event)
    except EventInvalid as problem:
        raise typer.BadParameter(str(problem)) from None
    registry = read_registry(state.transport(), state.settings)
    versions = known_model(registry, event.model)
    if registry.champion(event.model) is None:
        advice = f"driftloop model promote {event.model} {versions[-1].version}"
        raise Conflict(f"model must have a champion to repair, got none of {event.model!r} ({advice})")


@app.command("ls")
def list_jobs(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the jobs, oldest first.

    Example: driftloop jobs ls --json
    """
    views = [view for view in _views(state_of(context)).values() if model is None or view.model == model]
    if json:
        print_json(views)
    else:
        print_table(COLUMNS, [[getattr(view, column) for column in COLUMNS] for view in views])


@app.command()
def show(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="As `driftloop jobs ls` gives it.")],
    json: JsonFlag = False,
) -> None:
    """Show one job. Exit code 3 if there is none of this id.

    Example: driftloop jobs show user-0123456789ab
    """
    from msgspec import to_builtins

    from .schemas.errors import NotFound

    view = _views(state_of(context)).get(job_id)
    if view is None:
        raise NotFound(f"job must be one that was requested, got {job_id!r}")
    if json:
        print_json(view)
        return
    plain = to_builtins(view) | {"state": view.state, "reasons": "; ".join(view.reasons)}
    print_table(("field", "value"), list(plain.items()))


def _views(state: State) -> dict[str, JobView]:
    from .schemas.events import JobCommand, JobEvent
    from .streams.watching import Jobs, read_events

    settings, transport, jobs = state.settings, state.transport(), Jobs()
    for kind, carries in (("jobs", JobCommand), ("job-events", JobEvent)):
        for _, event in read_events(transport, [settings.topic(kind)], carries):
            jobs.take(event)
    return jobs.views


def _wait(state: State, job_id: str, timeout_s: float) -> JobView:
    from .schemas.events import JobEvent
    from .streams.fold_guard import FoldGuard
    from .streams.watching import POLL_S, Jobs

    settings, jobs, guard = state.settings, Jobs(), FoldGuard(logging.getLogger("driftloop.jobs"))
    reader = state.transport().reader([settings.topic("job-events")], "earliest")
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            for record in reader.poll(500, POLL_S):
                guard.take(record, JobEvent, lambda event: event.job_id == job_id and jobs.take(event))
                if job_id in jobs.views and jobs.views[job_id].ended:
                    return jobs.views[job_id]
    finally:
        reader.close()
    raise TimeoutError(f"job {job_id} must end within {timeout_s:g} s")


def _end(view: JobView) -> None:
    from .schemas.errors import GateRejected, JobError

    reasons = "; ".join(view.reasons)
    if view.state == "rejected":
        raise GateRejected(f"the gate rejected the candidate: {reasons}")
    if view.state in ("failed", "cancelled"):
        raise JobError(view.state, f"job {view.job_id} {view.state}: {reasons}")
