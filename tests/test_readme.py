"""What README.md shows is there: commands and their options, settings, events on the wire, the Python names, make targets, links."""

import functools
import inspect
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import driftloop
from driftloop import cli
from driftloop.schemas.codecs import decode
from driftloop.schemas.events import LabelArrived, PredictionMade
from driftloop.settings import Settings, load_settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.publishing import NewModel, file_signature, promote, register
from driftloop.tests.onnx_graphs import sound_model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(found[1], found[2]) for found in FENCE.finditer(README)]
PROSE = " ".join(FENCE.sub("", README).split())


def blocks(language: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == language]
    assert found, f"README.md shows no {language} any more"
    return found


def command_lines() -> list[str]:
    lines = [line.partition(" #")[0].strip() for text in blocks("sh") for line in text.splitlines()]
    spans = re.findall(r"`([^`]+)`", PROSE)
    return sorted({line for line in (*lines, *spans) if line.startswith("driftloop ")})


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_parses(line: str) -> None:
    command, words = get_command(cli.app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


def test_a_command_line_with_a_wrong_option_does_not_parse() -> None:
    with pytest.raises(Exception, match="--labl"):
        test_every_command_line_parses("driftloop replay history.csv --labl y")


def test_the_settings_load(tmp_path: Path) -> None:
    for at, text in enumerate(blocks("toml")):
        file = tmp_path / f"{at}.toml"
        file.write_text(text, "utf-8")
        settings = load_settings(file, environment={})
        assert settings.names_a_broker


def test_the_variables_it_names_are_settings() -> None:
    names = sorted(set(re.findall(r"DRIFTLOOP_([A-Z_]+?)__([A-Z_]+)", README)))
    assert names
    for section, key in names:
        section_class = Settings.model_fields[section.lower()].annotation
        assert section == "KAFKA" or key.lower() in section_class.model_fields, f"{section}__{key}"


def test_the_events_on_the_wire_decode() -> None:
    lines = [line for text in blocks("json") for line in text.splitlines()]
    kinds = [LabelArrived if "label" in json.loads(line) else PredictionMade for line in lines]
    assert set(kinds) == {LabelArrived, PredictionMade}
    for line, kind in zip(lines, kinds, strict=True):
        assert decode(line.encode(), kind, "README.md").prediction_id == "a-1"


def test_its_topics_are_those_of_the_default_settings() -> None:
    for kind in ("predictions", "labels"):
        assert f"`{Settings().topic(kind)}`" in PROSE


def test_logging_from_a_service_works_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[driftloop.RecordingClient] = []

    def recording(*arguments: object, **options: object) -> driftloop.RecordingClient:
        inspect.signature(real).bind(*arguments, **options)
        clients.append(driftloop.RecordingClient())
        return clients[-1]

    real = driftloop.Client
    monkeypatch.setattr(driftloop, "Client", recording, raising=False)
    exec(next(text for text in blocks("python") if "Client(" in text), {})
    prediction, label = clients[0].events
    assert isinstance(prediction, PredictionMade)
    assert isinstance(label, LabelArrived)
    assert prediction.prediction_id == label.prediction_id


def test_serving_the_champion_works_as_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    transport, settings = MemoryTransport(), load_settings(environment={})
    onnx, names = sound_model().SerializeToString(), ("amount", "age", "country_risk", "hour")
    event = register(settings, transport, NewModel("fraud", onnx, file_signature(onnx, names, (0, 1, 2))))
    promote(settings, transport, ("fraud", event.version), "test")
    monkeypatch.setattr(driftloop, "ModelWatcher", functools.partial(driftloop.ModelWatcher, transport=transport), raising=False)
    found: dict[str, Any] = {"driftloop": driftloop}
    exec(next(text for text in blocks("python") if "ModelWatcher(" in text), found)
    assert isinstance(found["promoted"], driftloop.PromotedModel)
    assert found["answer"].output in (0, 1, 2)
    assert found["promoted"].session().get_inputs()[0].name == "features"


def test_every_make_target_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(blocks("sh")) + " ".join(re.findall(r"`([^`]+)`", PROSE))))
    assert {"demo", "test", "install"} <= named <= targets


def test_every_linked_file_is_there() -> None:
    for name in re.findall(r"\[[^\]]*\]\(([^)#:]+)\)", README):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:tests|streams|deploy|benchmarks)/[\w/.]+\.\w+)`", README):
        assert (ROOT / name).is_file(), name


def test_its_exit_codes_are_those_of_the_command() -> None:
    told = PROSE.partition("Exit codes of the command:")[2]
    for code, words in re.findall(r"(\d+) ([a-z ]+)", cli.EPILOG):
        assert re.search(rf"\b{code} ", told), (code, words)
