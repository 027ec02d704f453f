"""The child that is started ahead: it does the next job, its time counts from then, and nothing of it is left behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from driftloop.compression.job_folder import read_outcome, write_job
from driftloop.schemas.config import RepairConfig
from driftloop.streams.child_process import Ended, Limits
from driftloop.streams.warm_child import Place, WarmChild
from driftloop.tests.test_job_child import champion, job

pytestmark = pytest.mark.slow

LIMITS = Limits(timeout_s=300.0, memory_bytes=8 * 1024**3)
__all__ = ["champion"]


def wait_until(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.01)


def run(place: Place, champion: object) -> Ended:
    write_job(place.folder, job(champion, "int8"), RepairConfig())  # type: ignore[arg-type]
    child = place.start()
    while (ended := child.wait(0.05)) is None:
        pass
    return ended


def waiting(warm: WarmChild) -> psutil.Process:
    assert warm._waiting is not None
    return psutil.Process(warm._waiting[2].pid)


def test_the_child_that_waits_does_the_next_job_and_another_start_its_own(champion: object) -> None:
    warm = WarmChild(LIMITS)
    warm.start()
    ahead = waiting(warm)
    warm.start()
    assert waiting(warm) == ahead
    with warm.place() as place:
        write_job(place.folder, job(champion, "int8"), RepairConfig())  # type: ignore[arg-type]
        child = place.start()
        assert child.pid == ahead.pid
        while (ended := child.wait(0.05)) is None:
            pass
        assert ended.reason == "ok", ended.tail
        assert read_outcome(place.folder).arm == "int8"
    assert not place.folder.parent.exists()
    with warm.place() as place:
        assert run(place, champion).reason == "ok"
    assert not place.folder.parent.exists()


def test_time_counts_from_the_job(champion: object) -> None:
    warm = WarmChild(Limits(timeout_s=0.2, memory_bytes=8 * 1024**3))
    warm.start()
    time.sleep(0.5)
    assert waiting(warm).is_running()
    with warm.place() as place:
        assert run(place, champion).reason == "timeout"


@pytest.mark.parametrize("end", ["close", "killed"])
def test_nothing_is_left_of_a_child_that_waited(end: str, champion: object) -> None:
    warm = WarmChild(LIMITS)
    warm.start()
    assert warm._waiting is not None
    folder = Path(warm._waiting[1])
    process = waiting(warm)
    wait_until(lambda: bool(process.children()))
    both = [process, *process.children()]
    if end == "close":
        warm.close()
    else:
        os.kill(both[1].pid, signal.SIGKILL)
        wait_until(lambda: warm._waiting is not None and warm._waiting[2].wait(0.0) is not None)
        with warm.place() as place:
            assert place.folder != folder
            assert run(place, champion).reason == "ok"
    assert not folder.parent.exists()
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in both)
