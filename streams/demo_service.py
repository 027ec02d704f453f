"""The service of a demo: `driftloop serve` as a process on a broker, or stepped by the player in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..schemas.errors import DriftloopError
from ..settings import FILE_VARIABLE, PREFIX, Settings
from .control_loop import ControlLoop
from .memory import MemoryTransport
from .memory_plane import MemoryPlane
from .tied_process import tied
from .worker import Worker

STOP_TIMEOUT_S = 20.0
LOG_LINES = 15


class Stepping(Protocol):
    """A part of the service that works when it is told to."""

    def step(self) -> int:
        """Take in what is there; return how much that was, 0 for nothing."""


class SteppedService:
    """Monitor, control plane and worker in this process, stepped by the player."""

    def __init__(self, plane: MemoryPlane, others: list[Stepping]) -> None:
        self._plane = plane
        self._parts: list[Stepping] = [plane, *others]

    def pump(self) -> bool:
        """Step every part once; return True if one had work."""
        return sum(bool(part.step()) for part in self._parts) > 0

    def counters(self) -> dict[str, int]:
        """Return what the monitor has counted."""
        return self._plane.counters()


class ServiceProcess:
    """A running `driftloop serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self._process = process
        self._log_file = log_file

    def pump(self) -> bool:
        """Return False: it works by itself. Raises DriftloopError with the end of its log once it has died."""
        code = self._process.poll()
        if code is not None:
            tail = "\n".join(self._log_file.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
            raise DriftloopError(f"service must run until the demo ends, got exit code {code} ({self._log_file}):\n{tail}")
        return False


@contextmanager
def memory_service(settings: Settings, transport: MemoryTransport) -> Iterator[SteppedService]:
    """Run monitor, control plane and worker over the memory transport, stepped by the player."""
    plane, control, worker = MemoryPlane(settings, transport), ControlLoop(settings, transport), Worker(settings, transport)
    worker.warm()
    try:
        yield SteppedService(plane, [control, worker])
    finally:
        plane.close()
        control.close()
        worker.close()


@contextmanager
def service_process(settings: Settings, log_file: Path) -> Iterator[ServiceProcess]:
    """Run `driftloop serve` with all roles and exactly these settings until the block ends."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="driftloop-demo-")))
        file = folder / "settings.toml"
        # May hold the broker's password: the folder is readable by its owner alone, and goes with the block.
        file.write_text(to_toml(settings), "utf-8")
        log = stack.enter_context(log_file.open("wb"))
        command = [sys.executable, "-m", "driftloop", "serve", "--roles", "monitor,control,worker"]
        process = subprocess.Popen(
            tied(command),
            env=variables | {FILE_VARIABLE: str(file)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield ServiceProcess(process, log_file)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(STOP_TIMEOUT_S)


def to_toml(settings: Settings) -> str:
    """Return settings as TOML that `load_settings` reads back as the same."""
    lines: list[str] = []
    for section, values in settings.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        lines += [f"{json.dumps(name)} = {_toml(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items() if item is not None) + "}"
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
