"""Run a module of ours in a child process under limits: address space, CPU, file size, wall clock, output; it dies with its parent.

`python -m driftloop.streams.child_process MEMORY CPU FILE PARENT MODULE ARGUMENT…` is what the parent starts: it limits itself before the
module is imported. Doing that between fork and exec would run Python code in a copy of a process whose threads are gone.
"""

from __future__ import annotations

import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from .tied_process import tie_to

Reason = Literal["ok", "failed", "memory", "timeout", "killed"]

MAX_LINE_BYTES = 64 * 1024
MAX_LINES = 10_000
TAIL_BYTES = 4 * 1024
MEMORY_SIGNS = ("memoryerror", "cannot allocate memory", "can't allocate memory", "bad_alloc", "failed to map segment")
PRIVATE_PREFIX = "DRIFTLOOP_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound a child; `grace_s` lies between the polite and the final signal."""

    timeout_s: float
    memory_bytes: int
    file_bytes: int = 4 * 1024**3
    grace_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Ended:
    """Say how a child ended; `tail` is the end of what it wrote to stderr."""

    reason: Reason
    code: int
    tail: str


class ChildProcess:
    """Be one running child in a session of its own; `take_lines` gives what it printed, `stop` ends it and all it started."""

    def __init__(self, module: str, arguments: Sequence[str], folder: Path, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.timeout_s
        self._late = False
        self._stopped = False
        self._lines: deque[bytes] = deque()
        self._taken = 0
        self._tail = b""
        cpu_s = int(limits.timeout_s * (os.cpu_count() or 1)) + 10
        said = [str(limits.memory_bytes), str(cpu_s), str(limits.file_bytes), str(os.getpid()), module, *arguments]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *said],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            # The broker's credentials come in variables, and a job has no use for them.
            env={name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_PREFIX)},
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_tail, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def wait(self, timeout_s: float) -> Ended | None:
        """Wait that long at most; return how it ended, or None while it runs. A child past its time is stopped."""
        try:
            self._process.wait(max(0.0, min(timeout_s, self._deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() < self._deadline:
                return None
            self._late = True
            self.stop()
        return self._ended()

    def take_lines(self) -> list[bytes]:
        """Return the lines printed since the last call; beyond a limit further ones are read and dropped."""
        lines: list[bytes] = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines

    def stop(self) -> None:
        """End the child: a polite signal to its session, then a final one."""
        self._stopped = self._process.poll() is None
        for number, patience_s in ((signal.SIGTERM, self._limits.grace_s), (signal.SIGKILL, 10.0)):
            # Also after the child itself is gone: what it started lives in its session.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self._close()

    def _ended(self) -> Ended:
        self._close()
        code = self._process.returncode
        tail = self._tail.decode("utf-8", "replace").strip()
        reason: Reason
        if self._late or code == -signal.SIGXCPU:
            reason = "timeout"
        elif code == 0:
            reason = "ok"
        elif any(sign in tail.lower() for sign in MEMORY_SIGNS):
            reason = "memory"
        else:
            reason = "killed" if code < 0 else "failed"
        return Ended(reason, code, tail)

    def _close(self) -> None:
        for reader in self._readers:
            reader.join(1.0)
        for pipe, reader in zip((self._process.stdout, self._process.stderr), self._readers, strict=True):
            if pipe is not None and not reader.is_alive():
                pipe.close()

    def _read_lines(self, pipe: IO[bytes]) -> None:
        while True:
            line = pipe.readline(MAX_LINE_BYTES)
            if not line:
                return
            self._taken += 1
            if self._taken <= MAX_LINES and line.endswith(b"\n"):
                self._lines.append(line)

    def _read_tail(self, pipe: IO[bytes]) -> None:
        while True:
            more = os.read(pipe.fileno(), 65_536)
            if not more:
                return
            self._tail = (self._tail + more)[-TAIL_BYTES:]


def limit_and_run(arguments: Sequence[str]) -> None:
    """Limit this process, tie it to its parent, then run the module as `python -m` would."""
    memory, cpu, file, parent = (int(number) for number in arguments[:4])
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, file),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    tie_to(parent)
    module, *rest = arguments[4:]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    limit_and_run(sys.argv[1:])
