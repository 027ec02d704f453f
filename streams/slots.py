"""Slots: the name under which a process is known to its consumer group across restarts; one process each.

Where the settings leave it open, a slot is made of host, user and the first number that no living process of this host holds. A lock
file says which those are: the kernel lets go of a lock when its process ends, however it ends. So a process that starts again takes its
place of before, and a second one beside it joins the group instead of taking the first one's place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ..schemas.config import AUTO_SLOT
from ..schemas.errors import Conflict, SlotTaken
from ..settings import Settings

HOST_CHARACTERS = 40
MAX_NUMBER = 1_000
SECTIONS: Mapping[str, str] = {"monitor": "data_plane", "control": "control", "worker": "worker"}
"""The section of the settings that holds the slot of each role."""


@contextmanager
def held_slots(settings: Settings, roles: Sequence[str]) -> Iterator[Settings]:
    """Give the settings with a slot for each role that is this process's own until the block ends; raises Conflict."""
    with ExitStack() as stack:
        changes = {}
        for role in roles:
            section = getattr(settings, SECTIONS[role])
            if section.slot == AUTO_SLOT:
                number, lock = _first_free(f"{settings.topics.prefix}\0{role}\0{getattr(section, 'group', '')}", role)
                stack.enter_context(lock)
                changes[SECTIONS[role]] = section.model_copy(update={"slot": f"{host_name()}-{number}"})
        yield settings.model_copy(update=changes)


def host_name() -> str:
    """Return this host and user as a part of a slot."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:HOST_CHARACTERS] or "host"
    return f"{host}-u{os.getuid()}"


def slot_taken(role: str, slot: str, group: str, why: str) -> SlotTaken:
    """Return the error of a process whose slot another one took, with the cure."""
    return SlotTaken(
        f"slot must belong to one process, got another one with slot {slot} of {group}: {why}"
        f' (give each process a {SECTIONS[role]}.slot of its own, or leave it "{AUTO_SLOT}")'
    )


def _first_free(what: str, role: str) -> tuple[int, IO[bytes]]:
    folder = private_folder("slots")
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    for number in range(MAX_NUMBER):
        lock = _locked(folder / f"{name}-{number}.lock")
        if lock is not None:
            return number, lock
    raise Conflict(f"a slot must be free, got {MAX_NUMBER} processes of this host ({SECTIONS[role]}.slot names one)")


def _locked(path: Path) -> IO[bytes] | None:
    lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def private_folder(name: str) -> Path:
    """Return a folder of this user alone in the temp directory; raises Conflict where it is someone else's."""
    top = Path(tempfile.gettempdir()) / f"driftloop-{os.getuid()}"
    folder = top / name
    try:
        for one in (top, folder):
            one.mkdir(mode=0o700, exist_ok=True)
        found = top.lstat()
        if found.st_uid != os.getuid() or top.is_symlink():
            raise Conflict(f"folder must belong to this user, got user {found.st_uid} ({top}; set TMPDIR, or a slot)")
    except OSError as problem:
        raise Conflict(f"folder must be writable, got {problem.strerror} ({folder}; set TMPDIR, or a slot)") from None
    return folder
