"""A job's folder: gone after the job, and after its worker was killed as soon as another one starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.streams import job_space as spaces
from driftloop.streams.job_space import LOCK, PREFIX, job_space, sweep

PROGRAM = """
import sys
from driftloop.streams.job_space import job_space
with job_space() as folder:
    (folder / "rows.npz").write_bytes(b"rows")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_folder_is_this_users_alone_and_goes_with_its_block(tmp_path: Path) -> None:
    with job_space() as folder:
        (folder / "rows.npz").write_bytes(b"rows")
        assert sweep() == 0
        assert folder.parent.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_is_swept_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    order, environment = [sys.executable, "-c", PROGRAM], {**os.environ, "TMPDIR": str(tmp_path)}
    with (
        subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as killed,
        subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        left, kept = (Path(process.stdout.readline().strip()) for process in (killed, living) if process.stdout is not None)
        killed.kill()
        killed.wait()
        assert sweep() == 1
        assert not left.parent.exists()
        assert (kept / "rows.npz").read_bytes() == b"rows"
        living.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_only_old_folders_without_a_lock_and_no_links_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(precious)
    young = tmp_path / f"{PREFIX}young"
    young.mkdir()
    assert sweep() == 0
    monkeypatch.setattr(spaces, "UNLOCKED_S", -1.0)
    (tmp_path / f"{PREFIX}file").write_bytes(b"")
    linked = tmp_path / f"{PREFIX}linked"
    linked.mkdir()
    (linked / LOCK).symlink_to(precious / "made")
    assert sweep() == 1
    assert not young.exists()
    assert linked.exists()
    assert list(precious.iterdir()) == []
