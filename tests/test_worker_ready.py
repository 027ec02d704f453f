"""Whether a worker can work is told with what stands in its way, and without what the store's address holds of secrets."""

import threading
from pathlib import Path

import pytest

from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.worker_ready import store_problem, wait_until_able, worker_can_work

CANARY = "CANARY7331"


def settings_of(url: str) -> Settings:
    return Settings.model_validate({"store": {"url": url}})


def test_a_store_that_takes_files_is_no_problem_and_keeps_none(tmp_path: Path) -> None:
    assert store_problem(str(tmp_path / "models")) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert worker_can_work(settings_of(str(tmp_path))) == []
    assert wait_until_able(settings_of(str(tmp_path)), MemoryTransport(), threading.Event())


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://u:{CANARY}@127.0.0.1:9/store",
        f"zip://a::/nope?token={CANARY}",
        f"file:///proc/x?token={CANARY}",
        f"nope://u:{CANARY}@host/x",
    ],
)
def test_a_store_that_takes_none_is_told_without_its_secret(url: str) -> None:
    problem = store_problem(url)
    assert problem is not None
    assert CANARY not in problem
    (said,) = worker_can_work(settings_of(url))
    assert said.startswith("store must be writable")
    assert CANARY not in said


def test_a_temp_folder_that_takes_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    (said,) = worker_can_work(settings_of(str(tmp_path)))
    assert said.startswith("temp directory must take a job's folder")
    assert "TMPDIR" in said


def test_who_stops_while_waiting_is_told_that_it_cannot_work() -> None:
    stop = threading.Event()
    stop.set()
    assert not wait_until_able(settings_of("/proc/nowhere"), MemoryTransport(), stop)
