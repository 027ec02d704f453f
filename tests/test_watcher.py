"""ModelWatcher: each champion handed over once, never with other bytes than announced."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import driftloop
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.errors import NotFound
from driftloop.schemas.events import Event, ModelPromoted, ModelRegistered, ModelRolledBack, Signature
from driftloop.settings import Settings
from driftloop.streams import watcher as watcher_file
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.transport import Outgoing, Transport
from driftloop.streams.watcher import ModelWatcher, PromotedModel

SIGNATURE = Signature(task="classification", features=("a",), classes=(0, 1))
WAIT_S = 20.0


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
        onnx = f"{model} {version}".encode()
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


def test_a_promoted_model_makes_its_own_session(tmp_path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    promoted = PromotedModel("m", 1, hashlib.sha256(onnx).hexdigest(), SIGNATURE, onnx)
    (negated,) = promoted.session().run(None, {"x": np.array([[1, -2]], np.float32)})
    assert negated.tolist() == [[-1, 2]]
    assert "onnx" not in repr(promoted)


def test_the_package_gives_the_watcher() -> None:
    assert driftloop.ModelWatcher is ModelWatcher
    assert "ModelWatcher" in driftloop.__all__
