"""Alerts on the command line: those that are open, those of a model, and one ended by a person's word."""

import json

import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.cli_console import State
from driftloop.schemas.events import AlertFired, AlertResolved
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.tests.worker_world import send


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> MemoryTransport:
    made = MemoryTransport()
    monkeypatch.setattr(State, "transport", lambda self: made)
    fired = [
        AlertFired(model=model, alert_id=f"drift-{model}", severity="high", summary=f"{model} is worse") for model in ("a", "b")
    ]
    over = AlertFired(model="b", alert_id="drift-old", severity="low", summary="it was")
    send(Settings(), made, "alerts", *fired, over, AlertResolved(model="b", alert_id="drift-old", summary="recovered"))
    return made


def run(*arguments: str):
    return CliRunner().invoke(cli.app, ["alerts", *arguments])


def ids(*arguments: str) -> list[str]:
    done = run("ls", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return sorted(one["alert_id"] for one in json.loads(done.stdout))


def test_open_ones_are_listed_and_all_on_demand(transport: MemoryTransport) -> None:
    assert ids() == ["drift-a", "drift-b"]
    assert ids("--all") == ["drift-a", "drift-b", "drift-old"]
    assert ids("--model", "b", "--all") == ["drift-b", "drift-old"]
    table = run("ls").stdout
    assert "drift-a" in table
    assert "drift-old" not in table


def test_one_is_ended_by_hand_with_a_note(transport: MemoryTransport) -> None:
    done = run("resolve", "drift-a", "--note", "new price list")
    assert (done.exit_code, done.stdout) == (0, "drift-a\tresolved\n")
    assert ids() == ["drift-b"]
    (view,) = [one for one in json.loads(run("ls", "--json", "--all").stdout) if one["alert_id"] == "drift-a"]
    assert (view["state"], view["summary"], view["resolved_by"]) == ("resolved", "new price list", "user")
    assert json.loads(run("resolve", "drift-b", "--json").stdout)["alert_id"] == "drift-b"


@pytest.mark.parametrize(("alert_id", "code"), [("drift-none", 3), ("drift-old", 4)])
def test_one_that_is_not_there_or_over_is_an_error(alert_id: str, code: int, transport: MemoryTransport) -> None:
    done = run("resolve", alert_id)
    assert done.exit_code == code
    assert alert_id in done.output
