"""The local broker: what it needs, how it starts and stops, what it says when it cannot."""

import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from driftloop.schemas.errors import BrokerUnavailable, Conflict, NotFound
from driftloop.streams import broker_libs
from driftloop.streams.broker import BrokerConfig, LocalBroker, answers
from driftloop.streams.broker_libs import KAFKA_VERSION, kafka_libs, pom_file, prerequisites


def fake_command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_pom_names_the_version_of_the_cache_folder() -> None:
    tree = ElementTree.parse(pom_file())
    assert tree.findtext(".//{*}properties/{*}kafka") == KAFKA_VERSION


def test_a_machine_without_java_and_maven_is_told_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("JAVA_HOME", "DRIFTLOOP_KAFKA_LIBS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    java, maven = prerequisites()
    assert "Java 17 or newer" in java
    assert "openjdk-17" in java
    assert "Maven" in maven
    with pytest.raises(Conflict, match="Maven"):
        LocalBroker(BrokerConfig(data_dir=tmp_path / "data")).start()


@pytest.mark.parametrize(("said", "major"), [('openjdk version "11.0.2" 2019', "11"), ('java version "1.8.0_202"', "8")])
def test_an_old_java_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, major: str) -> None:
    fake_command(tmp_path / "bin", "java", f"echo '{said}' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("DRIFTLOOP_KAFKA_LIBS", str(tmp_path))
    (tmp_path / "kafka_2.13-4.jar").touch()
    (tmp_path / "kafka-clients-4.jar").touch()
    assert [line for line in prerequisites() if f"17 or newer, got {major} " in line]


def test_a_java_that_cannot_be_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("no program")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert [line for line in prerequisites() if line.startswith("Java must run, got ") and str(tmp_path / "bin" / "java") in line]


def test_a_kafka_home_without_kafka_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=str(tmp_path / "libs")):
        kafka_libs(tmp_path)


def test_jars_are_brought_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fill = 'for a in "$@"; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done; mkdir -p "$d"'
    fake_command(
        tmp_path / "bin", "mvn", f'{fill}; touch "$d/kafka_2.13-4.jar" "$d/kafka-clients-4.jar"; echo x >> {tmp_path}/runs'
    )
    monkeypatch.delenv("DRIFTLOOP_KAFKA_LIBS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(broker_libs, "_java_problem", lambda: None)
    first = kafka_libs()
    assert kafka_libs() == first
    assert (tmp_path / "runs").read_text() == "x\n"
    assert [path.name for path in first.parent.iterdir()] == ["libs"]


def test_a_failing_maven_leaves_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_command(tmp_path / "bin", "mvn", "echo 'Could not transfer artifact'; exit 1")
    monkeypatch.delenv("DRIFTLOOP_KAFKA_LIBS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(broker_libs, "_java_problem", lambda: None)
    with pytest.raises(Conflict, match="Could not transfer artifact"):
        kafka_libs()
    assert list((tmp_path / "cache").rglob("*.jar")) == []


@pytest.mark.usefixtures("local_kafka")
def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"port must be free, got {port}"):
            LocalBroker(BrokerConfig(data_dir=tmp_path, port=port)).start()


def test_a_broker_that_dies_at_start_shows_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_command(
        tmp_path / "bin",
        "java",
        'case "$*" in *-version*) echo \'version "21"\' >&2;; *StorageTool*) ;; *) echo out of disk; exit 3;; esac',
    )
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    home = tmp_path / "home"
    (home / "libs").mkdir(parents=True)
    (home / "libs" / "kafka_2.13-4.jar").touch()
    (home / "libs" / "kafka-clients-4.jar").touch()
    local = LocalBroker(BrokerConfig(data_dir=tmp_path / "data", kafka_home=home))
    with pytest.raises(BrokerUnavailable, match="out of disk"):
        local.start()
    assert local.status() is None


def test_a_pid_of_another_program_is_not_the_broker(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "broker.json").write_text(f'{{"pid": {other.pid}, "created": 1.0, "port": 1}}')
        local = LocalBroker(BrokerConfig(data_dir=tmp_path))
        assert local.status() is None
        assert not local.stop()
        assert other.poll() is None
        other.communicate(b"\n")


@pytest.mark.kafka
@pytest.mark.usefixtures("local_kafka")
def test_start_status_stop_and_the_data_stays(tmp_path: Path) -> None:
    local = LocalBroker(BrokerConfig(data_dir=tmp_path, port=0))
    try:
        address = local.start()
        assert answers(address.bootstrap_servers, 5.0)
        assert local.start() == address
        assert LocalBroker(BrokerConfig(data_dir=tmp_path)).status() == address
        with pytest.raises(Conflict, match="stop it first"):
            LocalBroker(BrokerConfig(data_dir=tmp_path, port=1)).start()
    finally:
        assert local.stop()
    assert local.status() is None
    assert not local.stop()
    meta = (tmp_path / "data" / "meta.properties").read_text()
    try:
        assert local.start().bootstrap_servers == address.bootstrap_servers
    finally:
        local.stop()
    assert (tmp_path / "data" / "meta.properties").read_text() == meta
