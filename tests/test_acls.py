"""The table of rights: what roles may write follows from who writes it, and the printed commands name topics, groups and ids."""

import shlex

from typer.testing import CliRunner

from driftloop import cli
from driftloop.schemas.topics import KINDS
from driftloop.streams.acls import ROLES

BY_NAME = {role.name: role for role in ROLES}


def test_every_topic_has_a_writer_and_no_role_names_another() -> None:
    named = {kind for role in ROLES for kind in (*role.reads, *role.writes)}
    assert named <= set(KINDS)
    assert {kind for role in ROLES for kind in role.writes} == set(KINDS)


def test_who_may_say_which_model_serves_and_what_state_is() -> None:
    def writers(kind: str) -> set[str]:
        return {role.name for role in ROLES if kind in role.writes}

    assert writers("models") == {"worker", "operator"}
    assert writers("state") == writers("drift") == writers("metrics") == {"monitor"}
    assert writers("jobs") == {"control", "worker", "operator"}
    assert writers("alerts") == {"monitor", "control", "worker", "operator"}
    assert writers("predictions") == writers("labels") == {"app"}


def test_the_commands_are_printed_without_a_broker() -> None:
    environment = {"DRIFTLOOP_TOPICS__PREFIX": "team.", "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    done = CliRunner().invoke(cli.app, ["init", "--print-acls"], env=environment)
    assert done.exit_code == 0, done.output
    lines = [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("#")]
    assert all(line[:4] == ["kafka-acls", "--bootstrap-server", "127.0.0.1:1", "--add"] for line in lines)
    monitor = [" ".join(line) for line in lines if "User:driftloop-monitor" in line]
    assert any(line.endswith("--operation Write --operation Describe --topic team.state") for line in monitor)
    assert any("--group team.monitor" in line for line in monitor)
    control = [" ".join(line) for line in lines if "User:driftloop-control" in line]
    assert any(line.endswith("--operation Describe --group team.monitor") for line in control), "the watchdog asks for offsets"
    assert any("--transactional-id team.monitor- --resource-pattern-type prefixed" in line for line in monitor)
    app = [" ".join(line) for line in lines if "User:driftloop-app" in line]
    assert len(app) == len(BY_NAME["app"].writes)
    assert not any("Read" in line for line in app)
