"""The service: monitor, control and worker, each in a supervised thread of one process, which stop together."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..schemas.errors import DriftloopError
from ..settings import Settings
from .client_settings import OncePerMinute
from .kafka import KafkaTransport
from .log_text import OneLine
from .slots import SECTIONS, held_slots
from .supervision import Supervised
from .topics import ensure_topics
from .troubles import PREFIX, Trouble, announce, settle
from .watchdog import Watchdog

SWITCH_INTERVAL_S = 0.001  # the control plane's event loop waits that long for the monitor's thread, not the default 5 ms
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1
log = logging.getLogger("driftloop.serve")

Role = Callable[[Settings, threading.Event, threading.Event], None]
"""Runs until the first event is set; sets the second once it is ready."""


def serve(settings: Settings, roles: Sequence[str], stop: threading.Event, ready: threading.Event | None = None) -> None:
    """Run the roles until `stop` is set, then end all of them; raises what ended a role before.

    Says `ready` in the log (on stderr, unless logging is set up) once every role has its partitions.
    """
    with _logging():
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        ensure_topics(settings)
        with held_slots(settings, roles) as own:
            _Service(own, roles, stop, threading.Event() if ready is None else ready).run()


class _Service:
    """The threads of the roles, and the first reason why one ended for good."""

    def __init__(self, settings: Settings, roles: Sequence[str], stop: threading.Event, ready: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._ready = ready
        self._end = threading.Event()
        self._failed: tuple[str, BaseException] | None = None
        self._lock = threading.Lock()
        self._roles = {role: Supervised(role, partial(ROLES[role], settings), settings.service, self._on_loop) for role in roles}
        self._threads = [_thread(role, partial(self._run, role)) for role in roles]
        if "control" in roles:
            self._threads.append(_thread("watchdog", self._watch))

    def run(self) -> None:
        """Start all, wait, stop all."""
        for thread in self._threads:
            thread.start()
        try:
            while not self._stop.is_set() and not self._end.is_set():
                if not self._ready.is_set() and all(role.up.is_set() for role in self._roles.values()):
                    self._ready.set()
                    log.info("ready: %s at %s*", ", ".join(self._roles), self._settings.topics.prefix)
                self._settle()
                self._stop.wait(POLL_S)
        finally:
            self._end.set()
            stuck = self._join()
        if self._failed is not None:
            role, problem = self._failed
            log.error("%s ended: %s", role, problem)
            raise problem
        if stuck:
            raise DriftloopError(f"roles must end within {STOP_TIMEOUT_S:g} s, got {', '.join(stuck)} still running")
        log.info("stopped")

    def _run(self, role: str) -> None:
        try:
            self._roles[role].work(self._end)
        except BaseException as problem:  # noqa: BLE001 - raised again by the main thread
            with self._lock:
                if self._failed is None and not self._end.is_set():
                    self._failed = (role, problem)
                else:
                    log.warning("%s ended with: %s", role, problem)
        finally:
            self._end.set()

    def _watch(self) -> None:
        Watchdog(self._settings, KafkaTransport(self._settings)).run(self._end)

    def _settle(self) -> None:
        """End the trouble of a role that loops once it has run for a whole window, be it told by this process or one before."""
        now_s = time.monotonic()
        for role in self._roles.values():
            if role.settles(now_s):
                alert_id = PREFIX + self._loop_name(role.role)
                settle(self._settings, KafkaTransport(self._settings), {alert_id: f"{role.role} runs without a failure"})

    def _loop_name(self, role: str) -> str:
        return f"restarts-{role}-{getattr(self._settings, SECTIONS[role]).slot}"

    def _on_loop(self, role: str, summary: str) -> None:
        announce(self._settings, KafkaTransport(self._settings), [Trouble(self._loop_name(role), summary)])

    def _join(self) -> list[str]:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=target, name=f"driftloop-{name}", daemon=True)


def _monitor(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
    from .data_plane import DataPlane

    plane = DataPlane(settings)
    _follow(lambda: bool(plane.progress.partitions), up, stop)
    plane.run(stop)


def _control(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
    from .control import ControlPlane

    plane = ControlPlane(settings)
    plane.ready = up
    plane.run(stop)


def _worker(settings: Settings, stop: threading.Event, up: threading.Event) -> None:
    from .worker import Worker
    from .worker_ready import wait_until_able

    transport = KafkaTransport(settings)
    if not wait_until_able(settings, transport, stop):
        return
    worker = Worker(settings, transport)
    up.set()
    worker.run(stop)


def _follow(is_up: Callable[[], bool], up: threading.Event, stop: threading.Event) -> None:
    """Set `up` once `is_up` says so."""

    def wait() -> None:
        while not stop.wait(POLL_S):
            if is_up():
                up.set()
                return

    threading.Thread(target=wait, name="driftloop-ready", daemon=True).start()


ROLES: dict[str, Role] = {"monitor": _monitor, "control": _control, "worker": _worker}


@contextmanager
def _logging() -> Iterator[None]:
    """Show our log on stderr, and only the warnings of the libraries, unless the embedding program has set logging up."""
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    ours = logging.getLogger("driftloop")
    handler, level = logging.StreamHandler(sys.stderr), ours.level
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # Faust's client says five things at each of its attempts to connect, thirty times a second while the broker is away.
    seldom = OncePerMinute()
    handler.addFilter(lambda record: not record.name.startswith("aiokafka") or seldom.filter(record))
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        root.removeHandler(handler)
