"""How the SDK ends with its process: what waits is sent or counted, in programs, forks, workers of multiprocessing and at SIGTERM.

`atexit` does not run in workers of multiprocessing, which end by `os._exit`; there the module's own finalizers do. A `Pool` ends its
workers by SIGTERM. What ends by SIGKILL or by the program's own `os._exit` cannot be caught: what it logged in its last moments is lost.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import util as _multiprocessing_util  # noqa: F401 - makes the first of FAMILIES known
from types import FrameType
from typing import Any, Protocol

FAMILIES = ("multiprocessing", "billiard", "multiprocess")
"""Packages that start workers as multiprocessing does: itself, that of Celery, that of pathos."""
AFTER_ALL_OTHERS = -1_000
SEND_AGAIN_S = 0.05

log = logging.getLogger("driftloop.client")


class Leaving(Protocol):
    """What has to be sent before its process ends."""

    exit_flush_s: float
    flush_on_sigterm: bool | None

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, count the rest, take no more."""

    def leave(self, timeout_s: float) -> None:
        """Send what waits and tell of the rest: the process is about to be ended."""


class _Marker:
    """What multiprocessing holds our hook by."""


_live: weakref.WeakSet[Leaving] = weakref.WeakSet()
_marker = _Marker()
_hooked: set[str] = set()
# The process that is ending; a child that it forks meanwhile has the copy, and is not.
_ending: set[int] = set()
_wakeups: list[int] = []


def attend(client: Leaving) -> None:
    """Send what waits in `client` when this process or a child of it ends, at SIGTERM too unless `flush_on_sigterm` is False."""
    _live.add(client)
    _hook_families()
    if _is_worker():
        _begin_work(_marker)
    elif client.flush_on_sigterm is not False:
        _catch_sigterm()


def forget(client: Leaving) -> None:
    """Leave a client alone that was closed."""
    _live.discard(client)


def close_all() -> None:
    """Close every client; all share the one bound of time."""
    for client, left_s in _in_turn():
        client.close(left_s)


def leave_all() -> None:
    """Send what waits in every client within the one bound of time, and tell of the rest."""
    for client, left_s in _in_turn():
        client.leave(left_s)


def _in_turn() -> Iterable[tuple[Leaving, float]]:
    # librdkafka sends from threads of its own, all clients at once, also while the interpreter ends.
    clients = list(_live)
    deadline = time.monotonic() + max((client.exit_flush_s for client in clients), default=0.0)
    for client in clients:
        yield client, max(0.0, min(client.exit_flush_s, deadline - time.monotonic()))


def _hook_families() -> None:
    for family in FAMILIES:
        util: Any = sys.modules.get(f"{family}.util")
        if util is not None and family not in _hooked:
            _hooked.add(family)
            util.register_after_fork(_marker, _begin_work)


def _is_worker() -> bool:
    for family in FAMILIES:
        process: Any = sys.modules.get(f"{family}.process")
        if process is None:
            continue
        current = process.current_process()
        # A spawned worker is still to become one while it imports the program; no hook is run there.
        if type(current).__name__ != "_MainProcess" or getattr(current, "_inheriting", False):
            return True
    return False


def _begin_work(marker: _Marker) -> None:
    """Have the worker that this process is now send what waits when it ends."""
    utils: list[Any] = [sys.modules[f"{family}.util"] for family in FAMILIES if f"{family}.util" in sys.modules]
    # Celery's is multiprocessing's own. Those that were set before were cleared with the parent's.
    for finalize in {util.Finalize for util in utils}:
        finalize(None, _end_work, exitpriority=AFTER_ALL_OTHERS)
    if any(client.flush_on_sigterm is not False for client in _live):
        _catch_sigterm()
        _wake_at_signals()


def _end_work() -> None:
    others = [one for one in threading.enumerate() if not one.daemon and one is not threading.current_thread()]
    if others:
        # The worker still waits for its threads, and they may still log.
        leave_all()
        try:
            threading.Thread(target=_close_after, args=(others,), name="driftloop-exit").start()
            return
        except RuntimeError:
            log.debug("the process ends without waiting for its threads")
    close_all()


def _close_after(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
    close_all()


def _catch_sigterm() -> None:
    """Send what waits before SIGTERM ends the process, unless the program has a handler of its own."""
    if not _takes_default(signal.SIGTERM):
        return
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:
        asked = any(client.flush_on_sigterm for client in _live)
        level = logging.WARNING if asked else logging.DEBUG
        log.log(level, "flush_on_sigterm needs a client made in the main thread: SIGTERM ends this process without a flush")


def _wake_at_signals() -> None:
    """Have a thread see to it that the SIGTERM which a pool sends, once, is not slept through.

    It may come between Python's last look for signals and the wait for a lock: the wait goes on then, and the pool waits for its worker
    for ever. A thread reads what the system writes at each signal, and sends it again until the handler runs.
    """
    if _wakeups or signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    if _take_wakeups(writing):
        _wakeups.append(writing)
        threading.Thread(target=_send_again, args=(reading,), name="driftloop-signals", daemon=True).start()
    else:
        os.close(reading)
        os.close(writing)


def _take_wakeups(writing: int) -> bool:
    """Return whether what the system writes at each signal goes to `writing` now: not where it is another's already."""
    try:
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
    except ValueError:
        # Not in the main thread.
        return False
    return before == -1


def _send_again(reading: int) -> None:
    while signal.SIGTERM not in os.read(reading, 64):
        pass
    main = threading.main_thread().ident
    while main is not None and os.getpid() not in _ending and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(SEND_AGAIN_S)


def _forked() -> None:
    if _wakeups:
        # The child's signals must not reach the parent's thread.
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)
        _wakeups.clear()
    _hook_families()


def _takes_default(number: int) -> bool:
    # Python does not know the handlers of other languages (a JVM in the process, faulthandler); those of the system are asked too.
    system = ctypes.pythonapi.PyOS_getsig
    system.restype = ctypes.c_void_p
    return signal.getsignal(number) is signal.SIG_DFL and system(number) is None


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    if os.getpid() in _ending:
        return
    _ending.add(os.getpid())
    try:
        leave_all()
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
