"""The local broker on the command line, where none runs: said, with the exit code, and nothing is started."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftloop import cli


def run(*arguments: str):
    return CliRunner().invoke(cli.app, ["broker", *arguments])


def test_where_none_runs_it_is_said(tmp_path: Path) -> None:
    done = run("status", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (3, "")
    assert "driftloop broker start" in done.stderr
    done = run("status", "--json", "--data-dir", str(tmp_path))
    assert (done.exit_code, json.loads(done.stdout)) == (3, {"running": False})


def test_one_that_does_not_run_is_stopped_without_an_error(tmp_path: Path) -> None:
    done = run("stop", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no broker ran" in done.stderr
    assert json.loads(run("stop", "--json", "--data-dir", str(tmp_path)).stdout) == {"stopped": False}


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    done = run("start", "--port", port, "--data-dir", str(tmp_path))
    assert done.exit_code == 2
    assert "--port" in done.stderr


def test_a_kafka_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("start", "--data-dir", str(tmp_path / "data"), "--kafka-home", str(tmp_path / "nowhere"))
    assert done.exit_code != 0
    assert "Traceback" not in done.output
    assert "nowhere" in done.output
