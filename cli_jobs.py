"""`driftloop jobs`: ask for a repair, list the jobs, look at one, take one back."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_console import JsonFlag, State, print_json, print_table, state_of

if TYPE_CHECKING:
    from .schemas.events import JobRequested
    from .streams.job_states import JobState

app = typer.Typer(no_args_is_help=True, help="Ask for repairs and follow them.")

COLUMNS = ("requested_at", "job_id", "model", "recipe", "state", "position", "version", "arm", "duration_s")


@app.command()
def submit(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    recipe: Annotated[str, typer.Option(help="Name, or a JSON or TOML file.")] = "repair",
    episode: Annotated[str | None, typer.Option(help="Rows since the change of this episode (default: since the newest).")] = None,
    job_id: Annotated[str | None, typer.Option(help="Asking twice with one id is asking once (default: a new id).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 6 if rejected, 1 if failed.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait; exit code 124 after that.")] = 600.0,
    json: JsonFlag = False,
) -> None:
    """Ask a worker to repair or compress the champion, with the labelled rows since the newest change, or since that of an episode.

    Example: driftloop jobs submit fraud --recipe repair --wait
    """
    from .schemas.events import JobRequested
    from .schemas.recipe_reading import definition_sent
    from .streams.recipe_file import chosen_recipe

    state = state_of(context)
    asked = chosen_recipe(state.settings, recipe)
    chosen = f"user-{uuid.uuid4().hex[:12]}" if job_id is None else job_id
    event = JobRequested(model=model, job_id=chosen, recipe=asked.name, requested_by="user", definition=definition_sent(asked))
    _ask(state, event, episode)
    view = _wait(state, chosen, timeout) if wait else None
    if json:
        print_json(view if view is not None else {"job_id": chosen, "model": model, "recipe": asked.name, "state": "requested"})
    else:
        typer.echo(chosen if view is None else f"{chosen}\t{view.state}")
    if view is not None:
        _end(view)


def _ask(state: State, event: JobRequested, episode: str | None) -> None:
    """Ask for a job, with the rows of an episode where one is named, and say where nobody is there to do it."""
    from msgspec.structs import replace

    from .schemas.errors import DriftloopError
    from .streams.newest_change import episode_rows
    from .streams.outgoing import publish

    settings, transport = state.settings, state.transport()
    _check(state, event)
    if episode is not None:
        event = replace(event, rows=episode_rows(transport, settings, event.model, episode), episode_id=episode)
    transport.end_offsets(settings.topic("jobs"))
    publish(settings, transport, event)
    state.say(f"job {event.job_id} requested")
    # The job is asked for: who may not look at the group need not know.
    with suppress(DriftloopError):
        if not transport.members(settings.worker_group):
            state.say("no worker is there: it waits until one is (driftloop serve --roles worker)")


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
    jobs = [job for job in _jobs(state_of(context)) if model is None or job.model == model]
    if json:
        print_json(jobs)
    else:
        print_table(COLUMNS, [[_time(job.requested_at), *(getattr(job, column) for column in COLUMNS[1:])] for job in jobs])


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

    job = _known(state_of(context), job_id)
    if json:
        print_json(job)
        return
    times = {name: _time(getattr(job, name)) for name in ("requested_at", "started_at", "ended_at")}
    plain = to_builtins(job) | times | {"reasons": "; ".join(job.reasons)}
    print_table(("field", "value"), [(name, value) for name, value in plain.items() if value not in (None, "", {})])


@app.command()
def cancel(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="As `driftloop jobs ls` gives it.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended; exit code 124 after --timeout.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait.")] = 60.0,
    json: JsonFlag = False,
) -> None:
    """Take a job back: one that waits is not begun, one that runs is stopped. Exit code 3 if there is none, 4 if it has ended.

    Example: driftloop jobs cancel user-0123456789ab
    """
    from .schemas.errors import Conflict
    from .schemas.events import JobCancelled
    from .streams.outgoing import publish

    state = state_of(context)
    job = _known(state, job_id)
    if job.ended:
        raise Conflict(f"job must not have ended, it is {job.state} ({job_id})")
    publish(state.settings, state.transport(), JobCancelled(model=job.model, job_id=job_id))
    state.say(f"job {job_id} is taken back")
    if wait:
        # A worker that has it tells the end itself.
        job = _wait(state, job_id, timeout)
    if json:
        print_json(job if wait else {"job_id": job_id, "model": job.model, "state": "cancelled"})
    else:
        typer.echo(f"{job_id}\t{job.state if wait else 'cancelled'}")


def _time(seconds: float | None) -> str:
    """Return a time as people read it, in UTC."""
    from datetime import UTC, datetime

    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _jobs(state: State) -> list[JobState]:
    from .streams.job_states import read_jobs

    return read_jobs(state.transport(), state.settings)


def _known(state: State, job_id: str) -> JobState:
    from .schemas.errors import NotFound

    found = next((one for one in _jobs(state) if one.job_id == job_id), None)
    if found is None:
        raise NotFound(f"job must be one that was requested, got {job_id!r}")
    return found


def _wait(state: State, job_id: str, timeout_s: float) -> JobState:
    from .schemas.events import JobEvent
    from .streams.fold_guard import FoldGuard
    from .streams.job_states import JobStates
    from .streams.watching import POLL_S

    settings, jobs, guard = state.settings, JobStates(), FoldGuard(logging.getLogger("driftloop.jobs"))
    reader = state.transport().reader([settings.topic("job-events")], "earliest")
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            for record in reader.poll(500, POLL_S):
                told: list[Any] = []
                guard.take(record, JobEvent, told.append)
                for event in told:
                    if event.job_id == job_id:
                        jobs.take(event, record.timestamp_ms / 1000)
                if job_id in jobs.known and jobs.known[job_id].ended:
                    return jobs.known[job_id]
    finally:
        reader.close()
    raise TimeoutError(f"job {job_id} must end within {timeout_s:g} s")


def _end(view: JobState) -> None:
    from .schemas.errors import GateRejected, JobError

    reasons = "; ".join(view.reasons)
    if view.state == "rejected":
        raise GateRejected(f"the gate rejected the candidate: {reasons}")
    if view.state in ("failed", "cancelled"):
        raise JobError(view.state, f"job {view.job_id} {view.state}: {reasons}")
