"""ModelWatcher: each champion handed over once, never with other bytes than announced."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import driftloop
from driftloop.compression.store import ArtifactStore
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.config import StoreConfig
from driftloop.schemas.errors import ArtifactInvalid, NotFound
from driftloop.schemas.events import Event, ModelPromoted, ModelRegistered, ModelRolledBack, Signature
from driftloop.schemas.manifest import Manifest
from driftloop.settings import Settings
from driftloop.streams import watcher as watcher_file
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.publishing import NewModel, register
from driftloop.streams.transport import Outgoing, Transport
from driftloop.streams.watcher import ModelWatcher, PromotedModel

SIGNATURE = Signature(task="classification", features=("a", "b"), classes=(0, 1), input_name="x", output_name="y")
WAIT_S = 60.0


def model_bytes(name: str) -> bytes:
    """A model that negates its two inputs; `name` makes the bytes differ."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], name, values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def leaking_bytes() -> bytes:
    """A model whose weights are the file `.env` of the folder that the process works in."""
    model = onnx.load_model_from_string(model_bytes("leak"))
    model.graph.node[0].op_type = "Add"
    model.graph.node[0].input.append("leak")
    tensor = model.graph.initializer.add(name="leak", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.dims.append(2)
    for key, value in (("location", ".env"), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


class Shelf:
    """Keep artifacts in a dict; `put` may lie about the bytes."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked = 0

    def get(self, digest: str) -> bytes:
        self.asked += 1
        if digest not in self.kept:
            raise NotFound(f"artifact must be in the store ({digest})")
        return self.kept[digest]


class Stage:
    def __init__(self, transport: Transport, settings: Settings) -> None:
        self.transport = transport
        self.settings = settings
        self.shelf = Shelf()

    def send(self, *events: Event) -> None:
        sender = self.transport.sender()
        for event in events:
            key, value, headers = encode_event(event, 0.0)
            sender.send(Outgoing(self.settings.topic("models"), key, value, headers))
        assert sender.flush(WAIT_S) == 0
        sender.close()

    def promote(self, version: int, model: str = "m", shelve: bool = True) -> bytes:
        onnx = model_bytes(f"{model} {version}")
        digest = hashlib.sha256(onnx).hexdigest()
        if shelve:
            self.shelf.kept[digest] = onnx
        registered = ModelRegistered(
            model=model, version=version, digest=digest, uri="u", size_bytes=len(onnx), signature=SIGNATURE
        )
        self.send(registered, ModelPromoted(model=model, version=version, digest=digest, reason="r"))
        return onnx

    def watcher(self, model: str = "m", **more: object) -> ModelWatcher:
        return ModelWatcher(model, settings=self.settings, transport=self.transport, store=self.shelf, **more)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield Stage(MemoryTransport(), Settings())
        return
    settings: Settings = request.getfixturevalue("topics")
    yield Stage(KafkaTransport(settings), settings)


def test_the_newest_champion_is_handed_over_once_and_then_each_new_one(stage: Stage) -> None:
    stage.promote(1)
    newest = stage.promote(2)
    stage.promote(1, model="other")
    watcher = stage.watcher()
    assert watcher.current is None
    first = watcher.poll(WAIT_S)
    assert first is not None
    assert (first.version, first.onnx, first.signature) == (2, newest, SIGNATURE)
    assert watcher.poll(0.3) is None
    stage.promote(3)
    third = watcher.poll(WAIT_S)
    assert third is watcher.current
    assert third is not None
    assert third.version == 3
    back = ModelRolledBack(model="m", version=2, digest=first.digest, from_version=3, reason="r")
    stage.send(back)
    again = watcher.poll(WAIT_S)
    assert again == first
    watcher.close()


def test_nothing_is_handed_over_before_a_promotion(stage: Stage) -> None:
    watcher = stage.watcher()
    assert watcher.poll(0.3) is None
    stage.promote(1)
    assert watcher.poll(WAIT_S) is not None
    watcher.close()


def test_altered_or_missing_bytes_are_never_handed_over(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(watcher_file, "RETRY_S", 0.0)
    stage = Stage(MemoryTransport(), Settings())
    stage.promote(1)
    watcher = stage.watcher()
    first = watcher.poll()
    onnx = stage.promote(2, shelve=False)
    digest = hashlib.sha256(onnx).hexdigest()
    assert watcher.poll() is None
    stage.shelf.kept[digest] = onnx + b"!"
    assert watcher.poll() is None
    assert watcher.current == first
    assert "must have the digest that was announced" in caplog.text
    stage.shelf.kept[digest] = onnx
    second = watcher.poll()
    assert second is not None
    assert second.onnx == onnx


def test_a_refused_artifact_is_not_fetched_at_every_poll() -> None:
    stage = Stage(MemoryTransport(), Settings())
    stage.promote(1, shelve=False)
    watcher = stage.watcher()
    for _ in range(20):
        assert watcher.poll() is None
    assert stage.shelf.asked == 1


def test_a_thread_calls_back_and_survives_a_callback_that_raises(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher_file, "RETRY_S", 0.01)
    got: list[int] = []
    arrived = threading.Event()

    def load(promoted: PromotedModel) -> None:
        got.append(promoted.version)
        if promoted.version == 1:
            raise ValueError("cannot load")
        arrived.set()

    with stage.watcher(on_model=load) as watcher:
        stage.promote(1)
        while not got:
            arrived.wait(0.01)
        stage.promote(2)
        assert arrived.wait(WAIT_S)
    assert got == [1, 2]
    assert watcher.current is not None
    assert watcher.current.version == 2
    assert "cannot load" in caplog.text


def test_a_promoted_model_makes_its_own_session() -> None:
    data = model_bytes("own")
    promoted = PromotedModel("m", 1, hashlib.sha256(data).hexdigest(), SIGNATURE, data)
    (negated,) = promoted.session().run(None, {"x": np.array([[1, -2]], np.float32)})
    assert negated.tolist() == [[-1, 2]]
    assert "onnx" not in repr(promoted)


def test_a_session_reads_no_file_of_the_folder_that_the_server_works_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"PASSWORD=hunter2")
    with pytest.raises(ArtifactInvalid, match="external data"):
        PromotedModel("m", 1, "d", SIGNATURE, leaking_bytes()).session()


def test_a_session_fits_the_signature() -> None:
    wide = msgspec.structs.replace(SIGNATURE, classes=(0, 1, 2))
    with pytest.raises(ArtifactInvalid, match="3 columns, got 2"):
        PromotedModel("m", 1, "d", wide, model_bytes("own")).session()


@dataclass
class Lie:
    """A registration of a champion that says what is not so."""

    data: bytes = field(default_factory=lambda: model_bytes("champion"))
    stored: Signature = SIGNATURE
    said: Signature = SIGNATURE
    stored_model: str = "m"
    size_bytes: int | None = None
    manifest: bool = True


LIES = {
    "external data": Lie(data=leaking_bytes()),
    "no model": Lie(data=b"garbage"),
    "swapped classes": Lie(said=msgspec.structs.replace(SIGNATURE, classes=(1, 0))),
    "another model's": Lie(stored_model="other"),
    "not the model's signature": Lie(*[model_bytes("champion"), *[msgspec.structs.replace(SIGNATURE, features=("a",))] * 2]),
    "smaller": Lie(size_bytes=10),
    "larger than may be": Lie(size_bytes=1 << 40),
    "without manifest": Lie(manifest=False),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_registration_that_lies_is_never_handed_over(lie: Lie, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(store=StoreConfig(url=str(tmp_path)))
    stage = Stage(MemoryTransport(), settings)
    digest = hashlib.sha256(lie.data).hexdigest()
    manifest = Manifest(digest=digest, size_bytes=len(lie.data), model=lie.stored_model, signature=lie.stored, recipe="r")
    stored = ArtifactStore(str(tmp_path)).put(lie.data, manifest)
    if not lie.manifest:
        next(tmp_path.rglob("manifest.json")).unlink()
    size_bytes = stored.size_bytes if lie.size_bytes is None else lie.size_bytes
    event = ModelRegistered(model="m", version=1, digest=digest, uri="u", size_bytes=size_bytes, signature=lie.said)
    stage.send(event, ModelPromoted(model="m", version=1, digest=digest, reason="r"))
    watcher = ModelWatcher("m", settings=settings, transport=stage.transport)
    assert watcher.poll() is None
    assert "is not handed over" in caplog.text


def test_what_is_true_is_handed_over_from_the_store(tmp_path: Path) -> None:
    settings = Settings(store=StoreConfig(url=str(tmp_path)))
    stage = Stage(MemoryTransport(), settings)
    event = register(settings, stage.transport, NewModel("m", model_bytes("champion"), SIGNATURE))
    assert event.manifest_digest is not None
    stage.send(ModelPromoted(model="m", version=1, digest=event.digest, reason="r"))
    promoted = ModelWatcher("m", settings=settings, transport=stage.transport).poll()
    assert promoted is not None
    assert promoted.onnx == model_bytes("champion")


def test_a_store_that_runs_out_of_memory_does_not_end_the_poll(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Shelf):
        def get(self, digest: str) -> bytes:
            raise MemoryError

    stage = Stage(MemoryTransport(), Settings())
    stage.promote(1)
    stage.shelf = Full()
    assert stage.watcher().poll() is None
    assert "MemoryError" in caplog.text


@pytest.mark.kafka
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", ["poll", "thread"])
def test_a_watcher_of_before_a_fork_goes_on_in_the_child(topics: Settings, environment: dict[str, str], way: str) -> None:
    program = f"""
import os, sys, time
from driftloop import ModelWatcher
told = lambda promoted: print(role, promoted.version, flush=True)
role = "parent"
watcher = ModelWatcher("m", on_model=told if {way == "thread"} else None)
if {way == "thread"}: watcher.start()
else: told(watcher.poll({WAIT_S}))
while watcher.current is None: time.sleep(0.01)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
role = "child"
while watcher.current.version < 2:
    time.sleep(0.01)
    if {way == "poll"} and (promoted := watcher.poll(0.1)): told(promoted)
watcher.close()
"""
    stage = Stage(KafkaTransport(topics), topics)
    made = [register(topics, stage.transport, NewModel("m", model_bytes(f"fork{number}"), SIGNATURE)) for number in (1, 2)]
    first, second = (ModelPromoted(model="m", version=one.version, digest=one.digest, reason="r") for one in made)
    stage.send(first)
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # The parent's watcher goes on as well, sooner or later than the child's.
        of_child = (line for line in process.stdout if line.startswith("child"))
        assert next(of_child) == "child 1\n"
        stage.send(second)
        assert next(of_child) == "child 2\n"
        assert not list(of_child)
        assert process.wait(WAIT_S) == 0


def test_the_package_gives_the_watcher() -> None:
    assert driftloop.ModelWatcher is ModelWatcher
    assert "ModelWatcher" in driftloop.__all__
