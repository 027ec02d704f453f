"""Whether a worker can do its work here: its packages import, a job's folder can be made, the store takes a file."""

from __future__ import annotations

import importlib.util
import tempfile
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from ..schemas.redaction import secrets_of, without
from ..settings import Settings
from .transport import Transport
from .troubles import Trouble, announce, settle

WORKER_PACKAGES = ("torch", "onnxscript", "safetensors")
PROBE = b"driftloop"
LOOK_S = 5.0


def worker_can_work(settings: Settings) -> list[str]:
    """Return what keeps a worker from its work, one sentence each; none where it can."""
    missing = [name for name in WORKER_PACKAGES if importlib.util.find_spec(name) is None]
    problems = []
    if missing:
        problems.append(f'packages must be installed, got none of {", ".join(missing)} (pip install "driftloop[worker]")')
    problem = _folder_problem()
    if problem is not None:
        problems.append(f"temp directory must take a job's folder, got {problem} ({tempfile.gettempdir()}; set TMPDIR)")
    problem = store_problem(settings.store.url)
    if problem is not None:
        problems.append(f"store must be writable, got {problem} (store.url)")
    return problems


def wait_until_able(settings: Settings, transport: Transport, stop: threading.Event) -> bool:
    """Wait until the worker can work, as long as `stop` is not set; return whether it can. A job taken before would only fail."""
    problems = worker_can_work(settings)
    if not problems:
        return True
    trouble = Trouble(
        f"worker-unable-{settings.worker.slot}", f"worker {settings.worker.slot} takes no jobs: {'; '.join(problems)}"
    )
    announce(settings, transport, [trouble])
    while not stop.wait(LOOK_S):
        if not worker_can_work(settings):
            settle(settings, transport, {trouble.alert_id: f"worker {settings.worker.slot} takes jobs"})
            return True
    return False


def store_problem(url: str) -> str | None:
    """Return why the store takes no file, or None where it does; the address, which may hold a password, is left out."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        system.makedirs(path, exist_ok=True)
        probe = f"{path.rstrip('/')}/.driftloop-{uuid.uuid4().hex}"
        try:
            system.pipe_file(probe, PROBE)
            told = system.cat_file(probe)
        finally:
            with suppress(Exception):
                system.rm_file(probe)
    except Exception as problem:  # noqa: BLE001 - every file system of fsspec raises its own
        return without(f"{type(problem).__name__}: {problem}".replace(url, "the store"), secrets_of(url, {}))
    return None if told == PROBE else "other bytes than were written"


def _folder_problem() -> str | None:
    try:
        with tempfile.TemporaryDirectory(prefix="driftloop-probe-") as name:
            (Path(name) / "probe").write_bytes(PROBE)
    except OSError as problem:
        return problem.strerror or str(problem)
    return None
