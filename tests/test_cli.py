"""The command line: help, exit codes, one message for one error, JSON where asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftloop import __version__, cli

pytestmark = pytest.mark.slow

COMMANDS = (
    "demo",
    "init",
    "broker",
    "serve",
    "model",
    "produce",
    "watch",
    "jobs",
    "alerts",
    "compress",
    "replay",
    "export",
    "doctor",
)
NOWHERE = {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}


def run(*arguments: str, **options: object):
    return CliRunner().invoke(cli.app, arguments, **options)


def process(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "driftloop", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = run("--help", env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert "124 timed out" in done.stdout
    assert "6 the gate rejected" in done.stdout


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command not in ("broker", "model", "jobs", "alerts", "export")]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(command, "--help", env={"COLUMNS": "200"})
    assert done.exit_code == 0
    if command != "serve":
        assert "Example:" in done.stdout or command == "demo"


def test_version() -> None:
    assert run("--version").stdout == f"driftloop {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'faust', 'river', 'onnx', 'onnxruntime', 'matplotlib', 'confluent_kafka', 'scipy'}"
    code = (
        "import sys\nfrom driftloop.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"bad = {heavy} & set(sys.modules)\nsys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["repla"], 2, "replay"),
        (["replay"], 2, "Missing argument"),
        (["replay", "nothing.csv"], 3, "must exist"),
        (["replay", "nothing.csv", "--label", "y"], 2, "belong together"),
        (["demo", "--data", "x.csv"], 2, "belong together"),
        (["serve", "--roles", "monitor,cook"], 2, "roles must be of"),
        (["watch", "drft"], 3, "did you mean drift?"),
        (["export", "json-schema", "Nonsense"], 3, "PredictionMade"),
        (["--settings", "nothing.toml", "init"], 2, "readable"),
    ],
)
def test_a_mistake_has_one_message_and_its_exit_code(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_three_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_text('[topics]\npartitions = 0\nprefx = "x."\n[worker]\nmax_attempts = "many"\n')
    done = process("--settings", str(file), "watch", "drift")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("topics.partitions", "did you mean prefix?", "worker.max_attempts"))
    assert "Traceback" not in done.stderr


def test_debug_shows_where_an_error_came_from() -> None:
    assert "Traceback" in run("--debug", "replay", "nothing.csv").stderr


def test_json_schema_names_every_event() -> None:
    told = json.loads(run("export", "json-schema").stdout)
    assert {"PredictionMade", "LabelArrived", "DriftOpened", "JobFinished", "ModelPromoted"} <= set(told["$defs"])
    one = json.loads(run("export", "json-schema", "label_arrived").stdout)
    assert one["title"] == "LabelArrived"
    assert one["$defs"]["LabelArrived"]["properties"].keys() >= {"type", "prediction_id", "label", "model"}


def test_replay_prints_ndjson_and_a_summary(tmp_path: Path) -> None:
    rows = [f"{int(row % 10 == 0 if row < 1000 else row % 2)},0" for row in range(2_000)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["p,y", *rows]))
    done = process("replay", str(table), "--label", "y", "--prediction", "p")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["change_row"] for line in done.stdout.splitlines()]
    summary = process("replay", str(table), "--label", "y", "--prediction", "p", "--summary")
    assert json.loads(summary.stdout)["labels"] == 2_000
    again = process("replay", str(table), "--label", "y", "--prediction", "p", "--batch-size", "13")
    assert again.stdout == done.stdout


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("driftloop.streams.replay.replay_file", interrupt)
    done = run("replay", "x.ndjson")
    assert (done.exit_code, done.stderr) == (130, "driftloop: interrupted\n")


def test_a_timeout_ends_with_124(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*arguments: object) -> None:
        raise TimeoutError("it must end within 1 s")

    monkeypatch.setattr("driftloop.streams.replay.replay_file", late)
    assert run("replay", "x.ndjson").exit_code == 124


@pytest.mark.parametrize("arguments", [["init"], ["produce", "-"]])
def test_a_broker_that_is_away_ends_with_5(arguments: list[str]) -> None:
    line = '{"model": "m", "version": 1, "prediction_id": "1", "output": 1}\n'
    done = run(*arguments, env=NOWHERE, input=line)
    assert done.exit_code == 5, done.output
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def shell(line: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = line.replace("driftloop", f"{sys.executable} -W error -m driftloop")
    return subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("driftloop export json-schema >&-", 1, "output must be"),
        ("driftloop --help >&-", 1, "output must be"),
        ("driftloop export json-schema >/dev/full", 1, "No space left"),
        ("driftloop --help >/dev/full", 1, "No space left"),
        ("driftloop replay nothing.csv 2>&-", 3, ""),
        ("driftloop replay - <&-", 2, "must have at least one event"),
        ("driftloop --help | head -1", 0, ""),
        ("driftloop export json-schema | head -c 10", 0, ""),
        ("PYTHONIOENCODING=ascii driftloop --help", 0, ""),
        ("PYTHONIOENCODING=ascii driftloop replay näht.csv", 3, "must exist"),
        ("driftloop replay x.csv --settings a.toml", 2, "before the command"),
        ("driftloop model ls --debug", 2, "before the command"),
        ("driftloop --settings /dev/zero doctor", 2, "at most 65536 bytes"),
    ],
)
def test_no_stream_ends_in_a_traceback(line: str, code: int, said: str) -> None:
    done = shell(line, env={**os.environ, **NOWHERE, "COLUMNS": "300"})
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= (1 if code != 2 else 6)
