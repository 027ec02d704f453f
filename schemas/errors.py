"""Every error driftloop raises on purpose, and the exit code the command line gives it.

DriftloopError                 1  anything below
├── SettingsInvalid            2  a settings file or variable is wrong; all problems in one message
├── InputInvalid               2  a table or event file that cannot be read as one
├── RecipeInvalid              2  a recipe of an unknown name, step or parameter; all problems in one message
├── NotFound                   3  a model, version, job or file that is not there
├── Conflict                   4  the world is not as the command needs it
│   ├── SlotTaken              4  another process works under the slot of this one
│   └── TopicMismatch          4  a topic exists with another partition count or clean-up policy
├── BrokerUnavailable          5  no broker answers
├── StoreUnavailable           7  the store is full, read-only or away
├── GateRejected               6  the candidate did not beat the champion
├── EventInvalid               1  a record that is no event; carries its dead-letter disposition
├── SnapshotInvalid            1  saved state that must not be trusted
├── ArtifactInvalid            1  a model file that is not what it says
│   └── ModelUnsupported       1  a sound model file with an operator or shape we do not handle
└── JobError                   1  a job that could not be done; carries its kind
"""

from __future__ import annotations

from collections.abc import Sequence

MEMORY_SIGNS = (
    "memoryerror",
    "cannot allocate memory",
    "can't allocate memory",
    "bad_alloc",
    "failed to allocate",
    "failed to map segment",
    "can't start new thread",
    "thread creation failed",
    "pthread_create",
)


DISK_SIGNS = ("no space left on device", "read-only file system", "disk quota exceeded")


class DriftloopError(Exception):
    """The root of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class SettingsInvalid(DriftloopError):
    """Settings that are wrong; `problems` holds one line for every problem, all at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("settings are invalid:\n" + "\n".join(f"  - {line}" for line in problems))


class InputInvalid(DriftloopError):
    """A table or event file that cannot be read as one: what, where by line and column, and the cure."""

    exit_code = 2


class RecipeInvalid(DriftloopError):
    """A recipe that cannot be run; `problems` holds one line for every problem, all at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class NotFound(DriftloopError):
    """A thing that was asked for by name and is not there."""

    exit_code = 3


class Conflict(DriftloopError):
    """A state of things that stands in the way of the command."""

    exit_code = 4


class SlotTaken(Conflict):
    """A slot that another process has taken."""


class TopicMismatch(Conflict):
    """A topic that differs from what driftloop needs, and how."""


class BrokerUnavailable(DriftloopError):
    """A broker that did not answer, and for how long it was asked."""

    exit_code = 5


class StoreUnavailable(DriftloopError):
    """What keeps the store from giving or taking a file; later it may do so."""

    exit_code = 7


class GateRejected(DriftloopError):
    """The reasons why a candidate was not promoted."""

    exit_code = 6


class EventInvalid(DriftloopError):
    """The refusal of a record: `disposition` is one of `schemas.dead_letters.DISPOSITIONS`."""

    def __init__(self, disposition: str, message: str) -> None:
        self.disposition = disposition
        super().__init__(message)


class SnapshotInvalid(DriftloopError):
    """Saved state that is not taken: wrong schema version, library version, configuration or checksum."""


class ArtifactInvalid(DriftloopError):
    """A model file that is not taken."""


class ModelUnsupported(ArtifactInvalid):
    """An operator, attribute or shape of a model that is not handled."""


class JobError(DriftloopError):
    """The end of a job that could not be judged: `kind` is one of error, timeout, memory, crashed, cancelled."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def tells_of_disk(text: str) -> bool:
    """Return True for what a process says that could write no file."""
    return any(sign in text.lower() for sign in DISK_SIGNS)


def tells_of_memory(text: str) -> bool:
    """Return True for what a process says that was refused memory, or the memory of a thread."""
    return any(sign in text.lower() for sign in MEMORY_SIGNS)
