"""Trials: run a call in a forked copy of this process first, where it can raise, hang, run out of memory or crash and hurt nobody.

A fork has the monitor and the records as they are, for nothing: no state is written and read, and any kind of monitor can be tried. The
copy has this thread alone, calls nothing of Kafka's clients, and ends without cleaning up what is not its own.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

from .client_settings import log
from .tied_process import tie_to

TIMEOUT_S = 60.0
REASON_BYTES = 4_000
POLL_S = 0.05


def fault_of(call: Callable[[], object], timeout_s: float = TIMEOUT_S) -> str | None:
    """Return why `call` fails in a copy of this process, or None where it does not."""
    if not hasattr(os, "fork"):
        return None
    reading, writing = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside other threads: what they hold locked stays so in the copy, which asks for none of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _run(call, writing, parent)
    os.close(writing)
    try:
        return _outcome(pid, reading, timeout_s)
    finally:
        os.close(reading)


def _run(call: Callable[[], object], writing: int, parent: int) -> None:
    """Be the copy: say on the pipe what was raised, and end."""
    code = 1
    try:
        log.disabled = True
        gc.disable()
        tie_to(parent)
        # Should memory run out, the copy goes before the service.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        call()
        code = 0
    except BaseException as fault:  # noqa: BLE001 - told to the parent
        text = f"{type(fault).__name__}: {fault}"
        os.write(writing, text.encode("utf-8", "replace")[:REASON_BYTES] or b"?")
    finally:
        os._exit(code)


def _outcome(pid: int, reading: int, timeout_s: float) -> str | None:
    deadline, said, is_late = time.monotonic() + timeout_s, b"", False
    while not is_late:
        if select.select([reading], [], [], POLL_S)[0]:
            found = os.read(reading, REASON_BYTES)
            if not found:
                break
            said += found
        is_late = time.monotonic() > deadline
    if is_late:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if said:
        return said.decode("utf-8", "replace")
    if is_late:
        return f"not done within {timeout_s:g} s"
    if status < 0:
        return f"the process ended by signal {-status} ({signal.Signals(-status).name})"
    return None if status == 0 else f"the process ended with code {status}"
