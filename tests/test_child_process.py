"""Children under limits: every way to end has its reason, and nothing outlives the parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from driftloop.streams.child_process import ChildProcess, Ended, Limits

GENEROUS = Limits(timeout_s=20.0, memory_bytes=1024**3, grace_s=0.3)


def start(folder: Path, code: str, limits: Limits = GENEROUS) -> ChildProcess:
    (folder / "childs_code.py").write_text(code, "utf-8")
    return ChildProcess("childs_code", [], folder, limits)


def end_of(child: ChildProcess, timeout_s: float = 60.0) -> Ended:
    deadline = time.monotonic() + timeout_s
    while (ended := child.wait(0.2)) is None:
        assert time.monotonic() < deadline
    return ended


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    child = start(tmp_path, "import sys\nprint('one')\nprint('two')\nsys.stderr.write('noise')")
    assert end_of(child) == Ended("ok", 0, "noise")
    assert child.take_lines() == [b"one\n", b"two\n"]
    assert child.take_lines() == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "failed"),
        ("x = bytearray(4 << 30)", "memory"),
        ("raise ImportError('libtorch_cpu.so: failed to map segment from shared object')", "memory"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "killed"),
        ("import resource, signal\nresource.setrlimit(resource.RLIMIT_CPU, (1, 5))\nwhile True: pass", "timeout"),
    ],
)
def test_ways_to_end(tmp_path: Path, code: str, reason: str) -> None:
    assert end_of(start(tmp_path, code)).reason == reason


def test_one_that_ignores_the_polite_signal_is_ended_in_time(tmp_path: Path) -> None:
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
    began = time.monotonic()
    child = start(tmp_path, code, Limits(timeout_s=1.5, memory_bytes=1024**3, grace_s=0.3))
    assert end_of(child).reason == "timeout"
    assert time.monotonic() - began < 6
    assert not psutil.pid_exists(child.pid)


def test_a_file_without_end_is_cut_off(tmp_path: Path) -> None:
    code = "file = open('big', 'wb')\nwhile True: file.write(b'x' * 100_000)"
    child = start(tmp_path, code, Limits(timeout_s=20.0, memory_bytes=1024**3, file_bytes=1_000_000))
    assert end_of(child).reason == "failed"
    assert (tmp_path / "big").stat().st_size <= 1_000_000


def test_a_flood_of_output_is_bounded(tmp_path: Path) -> None:
    code = "for n in range(50_000): print(n)\nprint('x' * 1_000_000)"
    child = start(tmp_path, code)
    assert end_of(child).reason == "ok"
    assert len(child.take_lines()) == 10_000


def test_a_child_gets_what_it_needs_of_the_environment_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DRIFTLOOP_KAFKA__SASL_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "DATABASE_URL",
        "TOKEN",
    ):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    child = start(tmp_path, "import json, os\nprint(json.dumps(dict(os.environ)))")
    end_of(child)
    told = json.loads(child.take_lines()[0])
    assert "hunter2" not in told.values()
    assert (told["HOME"], told["TMPDIR"], told["LC_ALL"]) == (str(tmp_path), str(tmp_path), "C.UTF-8")
    assert told["PATH"] == os.environ["PATH"]


ORPHAN = """
import os, subprocess, sys, time
# In a session of its own, with an environment of its own, its parent gone: nothing ties it to the job but its descent.
middle = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, env={}).pid, flush=True)"
subprocess.run([sys.executable, "-c", middle], start_new_session=True)
"""


def is_over(pid: int, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def first_line(child: ChildProcess) -> bytes:
    while not (lines := child.take_lines()):
        assert child.wait(0.1) is None
    return lines[0]


@pytest.mark.parametrize("ignores", ["", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_a_grandchild_in_a_session_of_its_own_ends_with_stop(tmp_path: Path, ignores: str) -> None:
    child = start(tmp_path, ignores + ORPHAN + "time.sleep(60)")
    pid = int(first_line(child))
    child.stop()
    assert is_over(pid)
    assert is_over(child.pid)


@pytest.mark.parametrize(
    ("end", "reason"),
    [("", "ok"), ("sys.exit(3)", "failed"), ("os.kill(os.getpid(), 11)", "killed"), ("os.kill(os.getpid(), 9)", "killed")],
)
def test_what_a_child_leaves_behind_ends_when_it_has_ended(tmp_path: Path, end: str, reason: str) -> None:
    child = start(tmp_path, ORPHAN + end)
    assert end_of(child).reason == reason
    assert is_over(int(child.take_lines()[0]))


def test_what_the_child_started_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    child = start(tmp_path, code)
    while not (lines := child.take_lines()):
        assert child.wait(0.1) is None
    child.stop()
    assert is_over(int(lines[0]))


def test_the_child_and_all_it_started_die_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "childs_code.py").write_text(ORPHAN + "time.sleep(60)", "utf-8")
    code = (
        "from pathlib import Path; from driftloop.streams.child_process import *; import time;"
        f"child = ChildProcess('childs_code', [], Path({str(tmp_path)!r}), Limits(60.0, 1 << 30));\n"
        "while not (lines := child.take_lines()): time.sleep(0.05)\n"
        "print(child.pid, lines[0].decode(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(psutil.pid_exists(pid) for pid in pids)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert all(is_over(pid) for pid in pids)
