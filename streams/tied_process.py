"""Tie a process to its parent: where the parent is killed, which no `finally` survives, the child goes with it (Linux).

`python -m driftloop.streams.tied_process PARENT COMMAND…` ties itself and becomes COMMAND under the same process id; an exec keeps the tie.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def tie_to(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal this process when `parent` ends, the process id of the one that started it; elsewhere than on Linux nothing is tied."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        # The parent ended before its end could be noticed.
        sys.exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, in whatever session it is (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tied(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command`, its program named by a path, tied to this process.

    The tie is to the calling thread: where that ends before its process, so does the child.
    """
    return [sys.executable, "-m", __spec__.name, str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Become the command."""
    tie_to(int(arguments[0]))
    os.execv(arguments[1], list(arguments[1:]))  # noqa: S606 - a command of ours, and no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
