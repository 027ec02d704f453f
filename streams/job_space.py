"""The folder of a job in the temp directory: locked while its worker lives, so that what a killed one left can be told and removed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PREFIX = "driftloop-job-"
LOCK = "lock"
# A folder without a lock was just made, or by someone who ended in between.
UNLOCKED_S = 600.0
log = logging.getLogger("driftloop.worker")


@contextmanager
def job_space() -> Iterator[Path]:
    """Give an empty folder, readable by this user alone, that is gone after the block; raises OSError where none can be made."""
    while True:
        top = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(top / LOCK, os.O_CREAT)
        if lock is not None and top.exists():
            break
    try:
        folder = top / "job"
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(top, ignore_errors=True)
        lock.close()


def sweep() -> int:
    """Remove what workers of this user left that live no more; return how many folders that were."""
    swept = 0
    for top in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):
            swept += _swept(top)
    if swept:
        log.info("%d folders of jobs whose worker was killed are removed", swept)
    return swept


def _swept(top: Path) -> bool:
    found = top.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    try:
        lock = _locked(top / LOCK, 0)
    except FileNotFoundError:
        if time.time() - found.st_mtime < UNLOCKED_S:
            return False
        shutil.rmtree(top, ignore_errors=True)
        return True
    if lock is None:
        return False
    with lock:
        shutil.rmtree(top, ignore_errors=True)
    return True


def _locked(path: Path, flags: int) -> IO[bytes] | None:
    """Return the lock of a folder, or None where a living worker holds it."""
    lock = os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600), "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
