"""`driftloop model`: check, register, list, show, promote, approve, reject, roll back."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_console import JsonFlag, State, print_json, print_table, state_of

if TYPE_CHECKING:
    from .compression.seen import Adopted
    from .schemas.events import Signature
    from .settings import Settings
    from .streams.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Register models and say which version serves.")

MAX_SIGNATURE_BYTES = 1024 * 1024
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int | None, typer.Argument(min=1, help="The proposed version, where it must be that one.")]
By = Annotated[str, typer.Option(help="Who decides, kept in the history (default: the user of this system).")]


class Squash(StrEnum):
    """The activations that registration can put behind scores."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@app.command()
def register(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(help="ONNX file as an exporter wrote it, all in one.")],
    signature: Annotated[Path | None, typer.Option(help="JSON file: task, features, classes, input_name, output_name.")] = None,
    features: Annotated[
        str, typer.Option(help="Names of the features in order, by commas (default: the file's columns, or x0, x1, ...).")
    ] = "",
    classes: Annotated[
        str, typer.Option(help="Classes in the order of the scores, by commas (none: those that the file names, else regression).")
    ] = "",
    squash: Annotated[Squash | None, typer.Option(help="Put an activation behind scores that are logits.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make it the champion at once.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check a model file, put it into the store and register it as the next version.

    Example: driftloop model register fraud model.onnx --classes no,yes --promote
    """
    from .streams import publishing

    state = state_of(context)
    model = publishing.adopt_model(state.settings, file, "" if squash is None else squash.value)
    chosen = _signature(state.settings, signature, model, (features, classes))
    model.check_classes(chosen.classes)
    for note in (*model.notes, *publishing.score_notes(model.onnx, chosen, state.settings.models)):
        state.say(note)
    transport = state.transport()
    event = publishing.register(state.settings, transport, publishing.NewModel(name, model.onnx, chosen))
    if promote:
        publishing.promote(state.settings, transport, (name, event.version), "registered with --promote")
    if json:
        print_json(event)
    else:
        typer.echo(f"{name}\t{event.version}\t{event.digest}")
        state.say("the champion now" if promote else f"serves once promoted: driftloop model promote {name} {event.version}")


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="ONNX file as an exporter wrote it, all in one.")],
    classes: Annotated[str, typer.Option(help="Classes in the order of the scores, by commas (none: as the file says).")] = "",
    squash: Annotated[Squash | None, typer.Option(help="As registration would be told.")] = None,
    json: JsonFlag = False,
) -> None:
    """Say whether a model file can be served, watched, repaired, trained and compressed, each with reason and cure.

    Nothing is registered, no broker is asked. Exit code 1 if it cannot be served. Example: driftloop model check model.onnx
    """
    from .streams.model_check import check_file
    from .streams.table_task import typed_classes

    state = state_of(context)
    cells = [part.strip() for part in classes.split(",") if part.strip()]
    found = check_file(state.settings, file, typed_classes(cells), "" if squash is None else squash.value)
    if json:
        print_json(found)
    else:
        print_table(("model", "", "why", "cure"), [(one.what, "yes" if one.able else "no", one.reason, one.cure) for one in found])
    if not found[0].able:
        raise typer.Exit(1)


@app.command()
def key(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="New file for the private key.")], json: JsonFlag = False
) -> None:
    """Make a key that model events are signed with, and print its public half for `signing.public_keys`.

    Example: driftloop model key /etc/driftloop/models.pem
    """
    from .streams.signing import make_key

    public = make_key(file)
    if json:
        print_json({"private_key_file": str(file), "public_key": public})
    else:
        typer.echo(public)
        state_of(context).say(f"writers set signing.private_key_file, readers signing.public_keys; keep {file} from all others")


@app.command("ls")
def list_models(context: typer.Context, json: JsonFlag = False) -> None:
    """List the models and the versions that serve.

    Example: driftloop model ls --json
    """
    state = state_of(context)
    registry = _registry(state)
    told = [_overview(registry, name) for name in registry.models]
    if json:
        print_json(told)
    else:
        columns = ("model", "champion", "challenger", "versions", "digest", "size_bytes", "metric")
        print_table(columns, [[one[column] for column in columns] for one in told])


@app.command()
def show(context: typer.Context, name: Name, json: JsonFlag = False) -> None:
    """Show a model's versions, each with its lineage: * serves, ? is proposed. Exit code 3 if there is no such model.

    Example: driftloop model show fraud
    """
    from .compression.store import ArtifactStore
    from .schemas.errors import DriftloopError
    from .streams.publishing import known_model

    state = state_of(context)
    registry = _registry(state)
    versions = known_model(registry, name)
    store = ArtifactStore(state.settings.store.url)
    lineage: dict[int, Any] = {}
    for event in versions:
        try:
            lineage[event.version] = store.manifest(event.digest)
        except DriftloopError as problem:
            state.say(f"version {event.version}: {problem}")
            lineage[event.version] = None
    if json:
        told = [{"registered": event, "manifest": lineage[event.version]} for event in versions]
        print_json(_overview(registry, name) | {"lineage": told, "history": registry.history(name)})
        return
    champion, waiting = registry.champion(name), registry.challengers(name).waiting(time.time())
    waits = None if waiting is None else waiting.event.version
    rows = []
    for event in versions:
        manifest = lineage[event.version]
        serves = "*" if champion is not None and champion.version == event.version else "?" if event.version == waits else ""
        made = ("", "", "") if manifest is None else (manifest.recipe, manifest.arm, manifest.trained_rows)
        rows.append((serves, event.version, event.parent_version, *made, event.metric, event.size_bytes, event.digest))
    print_table(("", "version", "parent", "recipe", "arm", "trained_rows", "metric", "size_bytes", "digest"), rows)


@app.command()
def promote(
    context: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(min=1)],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "promoted by hand",
    json: JsonFlag = False,
) -> None:
    """Make a registered version the champion. Exit code 3 if it is not there, 4 if it serves already.

    Example: driftloop model promote fraud 3
    """
    from .streams import publishing

    state = state_of(context)
    event = publishing.promote(state.settings, state.transport(), (name, version), reason)
    if json:
        print_json(event)
    else:
        state.say(f"{name}: version {version} is the champion")


@app.command()
def approve(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    name: Name,
    version: Version = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "",
    by: By = "",
    json: JsonFlag = False,
) -> None:
    """Make the proposed version the champion. Exit code 3 without the model, 4 if no version, or another one, is proposed.

    Example: driftloop model approve fraud
    """
    from .streams.decisions import Decision
    from .streams.decisions import approve as decide

    state = state_of(context)
    event = decide(state.settings, state.transport(), Decision(name, _person(by), reason, version))
    if json:
        print_json(event)
    else:
        state.say(f"{name}: version {event.version} is the champion, approved by {event.by}")


@app.command()
def reject(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    name: Name,
    version: Version = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "",
    by: By = "",
    json: JsonFlag = False,
) -> None:
    """Say that the proposed version is not to serve; no repair offers it again. Exit codes as of approve.

    Example: driftloop model reject fraud --reason "not on a Friday"
    """
    from .streams.decisions import Decision
    from .streams.decisions import reject as decide

    state = state_of(context)
    event = decide(state.settings, state.transport(), Decision(name, _person(by), reason, version))
    if json:
        print_json(event)
    else:
        state.say(f"{name}: version {event.version} is rejected by {event.by}")


@app.command()
def rollback(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "rolled back by hand",
    json: JsonFlag = False,
) -> None:
    """Make the champion before this one serve again. Exit code 4 if there was none.

    Example: driftloop model rollback fraud
    """
    from .streams.outgoing import publish
    from .streams.publishing import known_model
    from .streams.registry import read_registry

    state = state_of(context)
    transport = state.transport()
    registry = read_registry(transport, state.settings)
    known_model(registry, name)
    event = registry.rollback(name, reason)
    publish(state.settings, transport, event)
    if json:
        print_json(event)
    else:
        state.say(f"{name}: version {event.version} is the champion again, instead of {event.from_version}")


def _person(by: str) -> str:
    """Return who decides: who is named, else the user of this system."""
    import getpass

    try:
        return by if by else getpass.getuser()
    except (OSError, KeyError):
        raise typer.BadParameter("must be named where the system knows no user", param_hint="--by") from None


def _registry(state: State) -> Registry:
    from .streams.registry import read_registry

    return read_registry(state.transport(), state.settings)


def _overview(registry: Registry, name: str) -> dict[str, Any]:
    champion = registry.champion(name)
    waiting = registry.challengers(name).waiting(time.time())
    told: dict[str, Any] = {"model": name, "versions": len(registry.versions(name))}
    told["challenger"] = None if waiting is None else waiting.event.version
    if champion is None:
        return told | {"champion": None, "digest": None, "size_bytes": None, "metric": None}
    return told | {
        "champion": champion.version,
        "digest": champion.digest,
        "size_bytes": champion.size_bytes,
        "metric": champion.metric,
    }


def _signature(settings: Settings, file: Path | None, model: Adopted, given: tuple[str, str]) -> Signature:
    import msgspec

    from .compression.store import read_bounded
    from .schemas.errors import ArtifactInvalid, NotFound
    from .schemas.events import Signature
    from .streams.publishing import adopted_signature
    from .streams.table_task import typed_classes

    if file is None:
        features, cells = ([part.strip() for part in text.split(",") if part.strip()] for text in given)
        return adopted_signature(model, features, typed_classes(cells), settings.models)
    try:
        return msgspec.json.decode(read_bounded(file, MAX_SIGNATURE_BYTES), type=Signature)
    except FileNotFoundError:
        raise NotFound(f"signature file must exist ({file})") from None
    except (ArtifactInvalid, OSError) as problem:
        raise typer.BadParameter(f"signature must be a readable file: {problem} ({file})", param_hint="--signature") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise typer.BadParameter(f"signature must be a JSON object: {problem} ({file})", param_hint="--signature") from None
