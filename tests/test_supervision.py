"""A role under supervision: started again beside the others, told when it loops, given up when it fails too often."""

import threading
import time

import pytest

from driftloop.schemas.config import ServiceConfig
from driftloop.schemas.errors import Conflict, DriftloopError, SettingsInvalid
from driftloop.streams.supervision import Supervised

QUICK = ServiceConfig(max_restarts=4, restart_min_s=0.001, restart_max_s=0.002)


def test_a_role_that_fails_starts_again() -> None:
    starts, stop = [], threading.Event()

    def run(end: threading.Event, up: threading.Event) -> None:
        starts.append(up.is_set())
        if len(starts) < 3:
            up.set()
            raise RuntimeError("broken on purpose")
        stop.set()
        end.wait()

    Supervised("worker", run, QUICK, lambda *_: None).work(stop)
    assert starts == [False, False, False], "a role that starts again is not ready"


def test_a_loop_is_told_once_and_ends_with_the_last_failure() -> None:
    told: list[tuple[str, str]] = []
    starts = []

    def run(end: threading.Event, up: threading.Event) -> None:
        starts.append(1)
        raise Conflict(f"failure {len(starts)}")

    with pytest.raises(Conflict, match="failure 5"):
        Supervised("worker", run, QUICK, lambda *said: told.append(said)).work(threading.Event())
    assert [role for role, _ in told] == ["worker"]
    assert "failure 3" in told[0][1]


def test_what_a_person_must_mend_ends_at_once() -> None:
    starts = []

    def run(end: threading.Event, up: threading.Event) -> None:
        starts.append(1)
        raise SettingsInvalid(["wrong"])

    with pytest.raises(SettingsInvalid):
        Supervised("worker", run, QUICK, lambda *_: None).work(threading.Event())
    assert len(starts) == 1


def test_a_role_settles_once_when_it_has_run_for_a_window() -> None:
    settled, stop = [], threading.Event()

    def run(end: threading.Event, up: threading.Event) -> None:
        settled.append(role.settles(time.monotonic() + QUICK.restart_window_s))
        up.set()
        settled.append(role.settles(time.monotonic()))
        settled.extend(role.settles(time.monotonic() + QUICK.restart_window_s) for _ in range(2))
        stop.set()

    role = Supervised("worker", run, QUICK, lambda *_: None)
    role.work(stop)
    assert settled == [False, False, True, False]


def test_a_role_that_ends_early_has_failed() -> None:
    with pytest.raises(DriftloopError, match="early end of worker"):
        Supervised("worker", lambda end, up: None, ServiceConfig(max_restarts=0), lambda *_: None).work(threading.Event())
