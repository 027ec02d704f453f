"""Run a module of ours in a child process under limits: address space, CPU, file size, wall clock, output; it dies with its parent.

`python -m driftloop.streams.child_process MEMORY CPU FILE GRACE PARENT MODULE ARGUMENT…` is what the parent starts. That process is the
leader: it runs the module in a child of its own, which limits itself before the module is imported, and it inherits whatever that child
starts and leaves behind, in whatever session. When the child has ended, or must, the leader ends all of it, then itself in the same way.
"""

from __future__ import annotations

import math
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from ..schemas.errors import tells_of_memory
from .tied_process import adopt_orphans, tie_to

Reason = Literal["ok", "failed", "memory", "timeout", "killed"]

MAX_LINE_BYTES = 64 * 1024
MAX_LINES = 10_000
TAIL_BYTES = 4 * 1024
# Credentials of broker and store come in variables, under names that nobody can list: a child gets what it needs and nothing else.
PASSED_ON = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"})
PASSED_ON_PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_")
CLEANUP_S = 5.0
STARTING_CPU_S = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a child; `grace_s` lies between the polite and the final signal."""

    timeout_s: float
    memory_bytes: int
    file_bytes: int = 4 * 1024**3
    grace_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended; `tail` is the end of what it wrote to stderr."""

    reason: Reason
    code: int
    tail: str


class ChildProcess:
    """One running child in a session of its own; `take_lines` gives what it printed, `stop` ends it and all it started.

    One that `waits` reads a line of its standard input before it does what takes time: its time counts from `begin`, which sends it.
    """

    def __init__(self, module: str, arguments: Sequence[str], folder: Path, limits: Limits, *, waits: bool = False) -> None:
        self._limits = limits
        self._deadline = math.inf if waits else time.monotonic() + limits.timeout_s
        self._late = False
        self._lines: deque[bytes] = deque()
        self._taken = 0
        self._tail = b""
        cpu_s = int(limits.timeout_s * (os.cpu_count() or 1)) + STARTING_CPU_S
        bounds = (limits.memory_bytes, cpu_s, limits.file_bytes, limits.grace_s, os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *map(str, bounds), module, *arguments],
            stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=passed_on(os.environ, folder),
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
        """Return the process id of the leader."""
        return self._process.pid

    def begin(self) -> ChildProcess:
        """Let a child that waits go on, and count its time from now; how it ended meanwhile is told by `wait`."""
        self._deadline = time.monotonic() + self._limits.timeout_s
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(b"\n")
                self._process.stdin.close()
        return self

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
        """End the child and all it started: a polite signal to its session, then the leader's final one, then ours."""
        if self._process.poll() is None:
            started = self._tree()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._limits.grace_s + CLEANUP_S)
            if self._process.poll() is None:
                for process in {*started, *self._tree()}:
                    with suppress(psutil.Error):
                        process.kill()
                self._process.kill()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(10.0)
        self._close()

    def _tree(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.Error:
            return []

    def _ended(self) -> Ended:
        self._close()
        code = self._process.returncode
        tail = self._tail.decode("utf-8", "replace").strip()
        reason: Reason
        if self._late or code == -signal.SIGXCPU:
            reason = "timeout"
        elif code == 0:
            reason = "ok"
        elif tells_of_memory(tail):
            reason = "memory"
        else:
            reason = "killed" if code < 0 else "failed"
        return Ended(reason, code, tail)

    def _close(self) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
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


def passed_on(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the variables a child gets; its home and its temp files lie in its folder, and go with it."""
    kept = {name: value for name, value in environment.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}
    return {**kept, "HOME": str(folder), "TMPDIR": str(folder)}


def lead(arguments: Sequence[str]) -> None:
    """Run the module in a child of this process, then end what it left behind, and this process as the child ended."""
    memory, cpu, file, grace, parent, module, *rest = arguments
    leader = os.getpid()
    adopt_orphans()
    child = os.fork()
    if child == 0:
        tie_to(leader)
        _limit((int(memory), int(cpu), int(file)))
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return

    def end(*_: Any) -> None:
        # The session has the polite signal already, unless it was the parent's end that brought it here.
        signal.setitimer(signal.ITIMER_REAL, float(grace) if os.getppid() == int(parent) else 0.001)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, lambda *_: _kill_children())
    tie_to(int(parent), signal.SIGTERM)
    code = _status_of(child)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _end_all()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(leader, -code)
    os._exit(code)


def _status_of(child: int) -> int:
    """Wait for `child`, and for whatever else ends meanwhile; return its exit code, negative for a signal."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end_all() -> None:
    """End every process that descends from this one: the children of what ends become its own."""
    deadline = time.monotonic() + CLEANUP_S
    while (found := _kill_children()) and time.monotonic() < deadline:
        time.sleep(0.002)
        for process in found:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _kill_children() -> list[psutil.Process]:
    found = list(psutil.Process().children())
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    return found


def _limit(bounds: tuple[int, int, int]) -> None:
    memory, cpu, file = bounds
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, file),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    lead(sys.argv[1:])
