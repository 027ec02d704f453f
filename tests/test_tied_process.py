"""A tied process has the id it was started with, and goes with the one that started it."""

import subprocess
import sys
import time

import psutil
import pytest

from driftloop.streams.tied_process import tied

PARENT = """
import subprocess, sys, time
from driftloop.streams.tied_process import tied
child = subprocess.Popen(tied([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_becomes_the_command_under_the_same_process_id() -> None:
    order = tied([sys.executable, "-c", "import os, sys; print(os.getpid(), *sys.argv[1:])", "a b"])
    with subprocess.Popen(order, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    assert (said.strip(), process.returncode) == (f"{process.pid} a b", 0)


def test_it_does_not_begin_once_its_parent_is_gone() -> None:
    order = tied([sys.executable, "-c", "print('began')"])
    order[3] = str(2**30)
    done = subprocess.run(order, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_goes_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        (pid,) = lines - {"up"}
        child = psutil.Process(int(pid))
        parent.kill()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
