"""Slots: each living process of a host has its own, and the next one after its end has the same again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftloop.schemas.config import ControlConfig, DataPlaneConfig, TopicsConfig, WorkerConfig
from driftloop.schemas.errors import Conflict, SettingsInvalid
from driftloop.settings import Settings, load_settings
from driftloop.streams import slots
from driftloop.streams.slots import held_slots, host_name, private_folder, slot_taken

ROLES = ("monitor", "control", "worker")
PROGRAM = """
import sys
from driftloop.settings import Settings
from driftloop.streams.slots import held_slots
with held_slots(Settings(), ["monitor"]) as settings:
    print(settings.data_plane.slot, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def slots_of(settings: Settings) -> tuple[str, str, str]:
    return settings.data_plane.slot, settings.control.slot, settings.worker.slot


def test_the_second_process_takes_the_next_number_and_the_third_the_one_that_is_free_again() -> None:
    named = [f"{host_name()}-{number}" for number in range(3)]
    with held_slots(Settings(), ROLES) as first:
        assert slots_of(first) == (named[0],) * 3
        with held_slots(Settings(), ROLES) as second:
            assert slots_of(second) == (named[1],) * 3
            with held_slots(Settings(), ["worker"]) as third:
                assert slots_of(third) == ("auto", "auto", named[2])
        with held_slots(Settings(), ROLES) as again:
            assert slots_of(again) == (named[1],) * 3


def test_a_slot_that_was_named_stays_and_another_deployment_counts_for_itself() -> None:
    settings = Settings(data_plane=DataPlaneConfig(slot="a"), control=ControlConfig(slot="b"), worker=WorkerConfig(slot="c"))
    with held_slots(settings, ROLES) as held, held_slots(Settings(), ROLES), held_slots(settings, ROLES) as other:
        assert slots_of(held) == slots_of(other) == ("a", "b", "c")
        with held_slots(Settings(topics=TopicsConfig(prefix="other.")), ROLES) as elsewhere:
            assert slots_of(elsewhere) == (f"{host_name()}-0",) * 3


@contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    order, environment = [sys.executable, "-c", PROGRAM], {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_killed_process_leaves_its_slot_to_its_successor(tmp_path: Path) -> None:
    with holder(tmp_path) as (first, slot), holder(tmp_path) as (_, second):
        assert (slot, second) == (f"{host_name()}-0", f"{host_name()}-1")
        first.kill()
        first.wait()
        with holder(tmp_path) as (_, third):
            assert third == slot


def test_a_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"driftloop-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict, match="must belong to this user"):
        private_folder("slots")


def test_the_name_of_a_slot_is_checked_and_a_long_host_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match=r"worker\.slot"):
        load_settings(None, {"DRIFTLOOP_WORKER__SLOT": "two words"})
    monkeypatch.setattr(slots.socket, "gethostname", lambda: "bücher " + "x" * 300)
    with held_slots(Settings(), ROLES) as settings:
        assert Settings.model_validate(settings.model_dump()) == settings


def test_the_message_names_the_cure() -> None:
    assert 'give each process a data_plane.slot of its own, or leave it "auto"' in str(slot_taken("monitor", "0", "g", "fenced"))
