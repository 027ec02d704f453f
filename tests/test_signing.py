"""Signed model events: what is forged, altered, repeated or moved counts nowhere, and is told."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.cli_console import State
from driftloop.compression.small_model import untrained_model
from driftloop.schemas.config import SigningConfig, StoreConfig
from driftloop.schemas.errors import Conflict, SettingsInvalid
from driftloop.schemas.events import ModelPromoted, ModelRegistered, ModelRejected, ModelRolledBack, Signature
from driftloop.schemas.records import Record
from driftloop.schemas.rows import Rows
from driftloop.settings import Settings, load_settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.outgoing import outgoing, outgoings, publish
from driftloop.streams.registry import read_registry
from driftloop.streams.signing import HEADER, make_key, signer_of
from driftloop.streams.transport import Outgoing
from driftloop.streams.watcher import ModelWatcher

pytest.importorskip("cryptography")
SIGNATURE = Signature(task="classification", features=("a", "b"), classes=(0, 1))
TOPIC = "driftloop.models"


class World:
    """A topic, a store, and settings with and without the key."""

    def __init__(self, folder: Path) -> None:
        self.public = make_key(folder / "key.pem")
        store = StoreConfig(url=str(folder / "store"))
        keys = {"public_keys": (self.public,)}
        self.writer = Settings(signing=SigningConfig(private_key_file=str(folder / "key.pem"), **keys), store=store)
        self.reader = Settings(signing=SigningConfig(**keys), store=store)
        self.open = Settings(store=store)
        self.transport = MemoryTransport()

    def records(self) -> list[Record]:
        reader = self.transport.reader([TOPIC])
        found = []
        while not reader.at_end():
            found += reader.poll(100, 0.0)
        return found

    def append(self, record: Record) -> None:
        self.transport.append([Outgoing(record.topic, record.key, record.value, record.headers)])

    def champion(self, settings: Settings) -> int | None:
        found = read_registry(self.transport, settings).champion("m")
        return None if found is None else found.version


def registered(version: int, model: str = "m") -> ModelRegistered:
    return ModelRegistered(model=model, version=version, digest=f"{version:064x}", uri="u", size_bytes=1, signature=SIGNATURE)


def promoted(version: int, model: str = "m") -> ModelPromoted:
    return ModelPromoted(model=model, version=version, digest=f"{version:064x}", reason="r")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for event in (registered(1), promoted(1), registered(2), promoted(2)):
        publish(made.writer, made.transport, event)
    return made


def test_signed_events_count(world: World) -> None:
    registry = read_registry(world.transport, world.reader)
    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == 2
    assert registry.skipped == {}
    assert world.champion(world.open) == 2


def test_a_forged_event_counts_only_where_no_key_is_known(world: World, caplog: pytest.LogCaptureFixture) -> None:
    back = ModelRolledBack(model="m", version=1, digest=f"{1:064x}", from_version=2, reason="r")
    world.transport.append([outgoing(world.open, back)])
    assert world.champion(world.open) == 1
    registry = read_registry(world.transport, world.reader)
    assert world.champion(world.reader) == 2
    assert registry.skipped == {"invalid": 1}
    assert "must carry one signature" in caplog.text


@pytest.mark.parametrize("part", ["value", "key", "headers", "topic"])
def test_an_altered_record_does_not_count(world: World, part: str, tmp_path: Path) -> None:
    (signed,) = outgoings(world.writer, world.transport, [registered(3)])
    assert signed.value is not None
    name, said = signed.headers[-1]
    other = make_key(tmp_path / "other.pem")
    assert other != world.public
    changed = {
        "value": signed._replace(value=signed.value.replace(b'"version":3', b'"version":4')),
        "key": signed._replace(key=b"other"),
        "headers": signed._replace(headers=((name, said[:-8] + b"AAAAAAAA"),) if said is not None else ()),
        "topic": signed,
    }[part]
    reader = world.reader
    if part == "topic":
        # What was signed for one deployment is nothing to another: the reader's topic bears another name.
        reader = reader.model_copy(update={"topics": reader.topics.model_copy(update={"prefix": "other."})})
        changed = signed._replace(topic="other.models")
    world.transport.append([changed])
    assert [event.version for event in read_registry(world.transport, reader).versions("m")] == ([] if part == "topic" else [1, 2])


def test_a_repeated_event_does_not_roll_back(world: World) -> None:
    old = world.records()[:2]
    for record in old:
        world.append(record)
    assert world.champion(world.open) == 1
    assert world.champion(world.reader) == 2
    assert read_registry(world.transport, world.reader).skipped == {"invalid": 2}
    publish(world.writer, world.transport, registered(3))
    publish(world.writer, world.transport, promoted(3))
    assert world.champion(world.reader) == 3


def test_events_in_another_order_do_not_count(world: World) -> None:
    moved = MemoryTransport()
    for at in (0, 2, 3, 1):
        record = world.records()[at]
        moved.append([Outgoing(record.topic, record.key, record.value, record.headers)])
    registry = read_registry(moved, world.reader)
    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == 1
    assert registry.skipped == {"invalid": 2}


def test_what_one_transaction_says_is_one_line_of_events(world: World) -> None:
    events = [registered(3), promoted(3), registered(1, "other"), ModelRejected(model="m", reasons=("r",))]
    world.transport.append(outgoings(world.writer, world.transport, events))
    assert world.champion(world.reader) == 3
    assert read_registry(world.transport, world.reader).models == ["m", "other"]


def test_who_comes_second_signs_again(world: World) -> None:
    late = outgoings(world.writer, world.transport, [promoted(1)])
    publish(world.writer, world.transport, registered(3))
    world.transport.append(late)
    assert world.champion(world.reader) == 2
    publish(world.writer, world.transport, promoted(1))
    assert world.champion(world.reader) == 1


def test_who_has_no_key_is_told_that_nobody_listens(world: World) -> None:
    with pytest.raises(Conflict, match=r"signing\.private_key_file"):
        publish(world.reader, world.transport, promoted(1))


def test_the_monitor_believes_signed_registrations_alone(world: World) -> None:
    forged = registered(9, "forged")
    world.transport.append([outgoing(world.open, forged)])
    signed, all_of_it = MemoryPlane(world.reader, world.transport), MemoryPlane(world.open, world.transport)
    assert (signed.step(), all_of_it.step()) == (4, 5)
    assert signed._gate.guard.skipped == {"invalid": 1}


def test_a_forged_promotion_is_not_handed_over(tmp_path: Path) -> None:
    from driftloop.streams.publishing import NewModel, promote, register

    world = World(tmp_path)
    random = np.random.default_rng(0)
    rows = Rows(random.normal(size=(50, 2)).astype(np.float32), random.integers(0, 2, 50), np.arange(50))
    first, second = (untrained_model(rows, SIGNATURE, (width,)) for width in (8, 4))
    for onnx in (first, second):
        register(world.writer, world.transport, NewModel("m", onnx, SIGNATURE))
    promote(world.writer, world.transport, ("m", 1), "good")
    promote(world.open, world.transport, ("m", 2), "forged")
    seen = ModelWatcher("m", settings=world.reader, transport=world.transport).poll()
    assert seen is not None
    assert (seen.version, seen.onnx) == (1, first)


def test_keys_are_shown_nowhere_and_are_their_owners_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    file = tmp_path / "key.pem"
    assert file.stat().st_mode & 0o077 == 0
    secret = file.read_text().splitlines()[1]
    signer = signer_of(world.writer.signing)
    assert repr(signer) == "Signer()"
    assert secret not in f"{world.writer!r} {world.writer.redacted()} {vars(signer)}"
    with pytest.raises(Conflict, match="new one"):
        make_key(file)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"public_keys": ("AAAA",)}, "base64"),
        ({"public_keys": ("nothing",), "private_key_file": "/nowhere.pem"}, "readable"),
        ({"private_key_file": "key.pem"}, "public_keys"),
    ],
)
def test_keys_that_are_none_are_told(table: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises((SettingsInvalid, ValueError), match=says):
        publish(Settings(signing=SigningConfig(**table)), MemoryTransport(), registered(1))  # type: ignore[arg-type]


def test_a_key_is_made_by_the_command_and_set_by_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "transport", lambda self: MemoryTransport())
    done = CliRunner().invoke(cli.app, ["model", "key", str(tmp_path / "k.pem")])
    assert done.exit_code == 0, done.output
    public = done.stdout.strip()
    variables = {
        "DRIFTLOOP_SIGNING__PUBLIC_KEYS": f"{public}, {public}",
        "DRIFTLOOP_SIGNING__PRIVATE_KEY_FILE": str(tmp_path / "k.pem"),
    }
    assert load_settings(environment=variables).signing.public_keys == (public, public)
    assert HEADER in dict(outgoings(load_settings(environment=variables), MemoryTransport(), [registered(1)])[0].headers)
