"""The examples: each compiles, imports what is there, starts nothing when imported, and does in memory what it says."""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import driftloop
from driftloop.schemas.codecs import encode_json
from driftloop.schemas.events import PredictionMade
from driftloop.streams.watcher import PromotedModel
from driftloop.tests.onnx_graphs import signature, sound_model

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    path = next(path for path in EXAMPLES if path.stem == name)
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_imports_and_asks_a_question(name: str) -> None:
    module = load(name)
    assert callable(module.main)
    assert module.__doc__ is not None
    assert module.__doc__.splitlines()[0].endswith("?")


def test_the_service_logs_a_drift_that_watch_drift_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = driftloop.RecordingClient()
    service = load("log_from_service")
    monkeypatch.setattr(service.driftloop, "Client", lambda address: recording, raising=False)
    monkeypatch.setattr(sys, "argv", ["log_from_service.py"])
    service.main()
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join(encode_json(event) for event in recording.events))
    replayed = subprocess.run(
        [sys.executable, "-m", "driftloop", "replay", str(log)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert [json.loads(line)["signal"] for line in replayed.stdout.splitlines()].count("error") >= 1
    capsys.readouterr()
    watch = load("watch_drift")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(replayed.stdout.encode())))
    watch.main()
    assert "error is worse since offset" in capsys.readouterr().out


def test_the_serving_process_answers_with_the_champion() -> None:
    client = driftloop.RecordingClient()
    serving = load("serve_champion").Service(client)
    serving.switch(PromotedModel("m", 3, "d" * 64, signature(4, 3), sound_model().SerializeToString()))
    answer = serving.answer([0.1, 0.2, 0.3, 0.4])
    logged = client.events[0]
    assert isinstance(logged, PredictionMade)
    assert (logged.version, logged.output, len(logged.scores or ())) == (3, answer, 3)
