"""`driftloop doctor`: one finding a check, an exit code by the first that failed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.settings import Settings
from driftloop.streams import doctor

NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BROKER_TIMEOUT_S", 0.5)


def settings(store: Path) -> Settings:
    return Settings(kafka=NOWHERE, store={"url": str(store)})


def test_a_broker_that_is_away_fails_and_ends_the_checks_of_topics(tmp_path: Path) -> None:
    found = {finding.check: finding for finding in doctor.examine(settings(tmp_path / "store"))}
    assert (found["broker"].verdict, found["broker"].exit_code) == ("fail", 5)
    assert "127.0.0.1:1" in found["broker"].found
    assert (found["store"].verdict, found["python"].verdict) == ("ok", "ok")
    assert "topics" not in found
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = {finding.check: finding for finding in doctor.examine(settings(tmp_path / "file" / "store"))}
    assert (found["store"].verdict, found["store"].exit_code) == ("fail", 1)


@pytest.mark.parametrize("scheme", ["ftp", "http", "s3", "sftp", "webhdfs", "smb", "github", "postgres"])
def test_the_password_of_the_store_is_not_shown(scheme: str) -> None:
    url = "github://o:r@CANARY/x" if scheme == "github" else f"{scheme}://u:CANARY@127.0.0.1:9/x"
    finding = doctor._store(Settings(kafka=NOWHERE, store={"url": url}))
    assert (finding.verdict, finding.exit_code) == ("fail", 1)
    assert "CANARY" not in repr(finding)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "WORKER_PACKAGES", ("json", "no_such_package"))
    found = {finding.check: finding for finding in doctor.examine(settings(tmp_path))}
    assert (found["worker packages"].verdict, found["worker packages"].found) == ("warn", "missing: no_such_package")


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    environment = {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "DRIFTLOOP_STORE__URL": str(tmp_path / "store")}
    plain = CliRunner().invoke(cli.app, ["doctor"], env=environment)
    assert plain.exit_code == 5
    assert plain.stdout.splitlines()[0].split("\t") == ["check", "verdict", "found", "what to do"]
    as_json = CliRunner().invoke(cli.app, ["doctor", "--json"], env=environment)
    told = json.loads(as_json.stdout)
    assert (as_json.exit_code, told["ok"]) == (5, False)
    assert {check["check"] for check in told["checks"]} >= {"python", "store", "broker"}
