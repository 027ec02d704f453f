"""Children under limits: every way to end has its reason, and nothing outlives the parent."""

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


def end_of(child: ChildProcess, timeout_s: float = 25.0) -> Ended:
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


def test_secrets_of_the_environment_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_KAFKA__SASL_PASSWORD", "hunter2")
    child = start(tmp_path, "import os\nprint([name for name in os.environ if 'SASL' in name])")
    end_of(child)
    assert child.take_lines() == [b"[]\n"]


def test_what_the_child_started_ends_with_it(tmp_path: Path) -> None:
    code = "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    child = start(tmp_path, code)
    while not (lines := child.take_lines()):
        assert child.wait(0.1) is None
    child.stop()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(lines[0])) and psutil.Process(int(lines[0])).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "childs_code.py").write_text("import time\ntime.sleep(60)", "utf-8")
    code = (
        "from pathlib import Path; from driftloop.streams.child_process import *; import time;"
        f"child = ChildProcess('childs_code', [], Path({str(tmp_path)!r}), Limits(60.0, 1 << 30));"
        "time.sleep(1.0); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
