"""Foreign models are opened in a limited child before anything else opens them: `python -m driftloop.streams.model_trial FOLDER`.

Once for each digest in a process: what the child saw is remembered, a refusal too. The child writes what it saw, or why it refuses,
into FOLDER; one that crashes, hangs or takes too much has said so. Where FOLDER says what is asked of
adoption, an exporter's file is made one that can be served first.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

import msgspec

from ..compression.seen import PLAIN, Adopted, Adoption, Seen, check_seen
from ..schemas.config import ModelsConfig
from ..schemas.errors import ArtifactInvalid, Conflict, ModelUnsupported
from ..schemas.events import Scalar, Signature
from ..schemas.plain_text import one_line
from .child_process import ChildProcess, Ended, Limits

DEFAULTS = ModelsConfig()
MODULE = "driftloop.streams.model_trial"
MODEL, ASKED, SEEN, REFUSED, CHANGES = "model.onnx", "asked.json", "seen.json", "refused.json", "changes.json"
MAX_ANSWER_BYTES = 1024 * 1024
MAX_REMEMBERED = 256
# Of a file of weights, as protobuf, checker, shape inference and session hold them at once: 250 MB took 2.2 GB.
COPIES = 8
FORGET_S = 600.0  # a refusal that the machine's load may have caused
log = logging.getLogger("driftloop.models")

_remembered: OrderedDict[str, tuple[Seen | ArtifactInvalid, float]] = OrderedDict()
_lock = threading.Lock()


class Refusal(msgspec.Struct, frozen=True):
    """Why the child refuses a model."""

    unsupported: bool
    message: str


class Changes(msgspec.Struct, frozen=True):
    """What adoption made of a model, but its bytes."""

    notes: tuple[str, ...]
    classes: tuple[Scalar, ...]
    features: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]


def adopted(data: bytes, config: ModelsConfig, asked: Adoption = PLAIN) -> Adopted:
    """Return the model file of an exporter as one that can be served, as asked, tried already; raises as `tried`."""
    _check_size(data, config)
    try:
        known, certain, told = _try(data, config, asked)
    except OSError as problem:
        raise _no_child(problem) from None
    if isinstance(known, ArtifactInvalid):
        raise type(known)(str(known))
    assert told is not None  # there is one where there is no refusal
    _check_size(told.onnx, config)
    _remember(hashlib.sha256(told.onnx).hexdigest(), known, certain)
    return told


def tried(data: bytes, config: ModelsConfig, signature: Signature | None = None) -> Seen:
    """Return what a trial of the model in `data` saw, checked against `signature` where one is given.

    Raises ArtifactInvalid or ModelUnsupported with the reason; a model on which the child crashed, hung or ran out of memory is
    refused too. Conflict where no child can be started, which says nothing of the model.
    """
    _check_size(data, config)
    digest = hashlib.sha256(data).hexdigest()
    with _lock:
        known, until = _remembered.get(digest, (None, 0.0))
    if known is None or until < time.monotonic():
        try:
            known, certain, _ = _try(data, config)
        except OSError as problem:
            raise _no_child(problem) from None
        _remember(digest, known, certain)
    if isinstance(known, ArtifactInvalid):
        raise type(known)(str(known))
    if signature is not None:
        check_seen(known, signature)
    return known


def trial_memory(size_bytes: int, config: ModelsConfig) -> int:
    """Return the address space of the child that tries a file of so many bytes."""
    return min(config.trial_memory_bytes, config.trial_base_bytes + COPIES * size_bytes)


def _check_size(data: bytes, config: ModelsConfig) -> None:
    if not 0 < len(data) <= config.max_bytes:
        raise ArtifactInvalid(f"model file must have 1 to {config.max_bytes} bytes, got {len(data)} (models.max_bytes)")


def _no_child(problem: OSError) -> Conflict:
    said = "model must be tried in a child process first, which cannot be started here: a folder for temporary files (TMPDIR), room"
    return Conflict(f"{said} in it and a process are needed, got {one_line(problem)}")


def _remember(digest: str, known: Seen | ArtifactInvalid, certain: bool) -> None:
    with _lock:
        _remembered[digest] = known, math.inf if certain else time.monotonic() + FORGET_S
        while len(_remembered) > MAX_REMEMBERED:
            _remembered.popitem(last=False)


def _try(data: bytes, config: ModelsConfig, asked: Adoption | None = None) -> tuple[Seen | ArtifactInvalid, bool, Adopted | None]:
    """Return what a child says of the model, whether it would say so on any day, and what it made of the model where it adopts."""
    with tempfile.TemporaryDirectory(prefix="driftloop-model-") as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(data)
        size_bytes = len(data)
        if asked is not None:
            (folder / ASKED).write_bytes(msgspec.json.encode(asked))
            size_bytes += _beside_bytes(asked, config)
        # Adoption may write the model anew, a little longer.
        limits = Limits(config.trial_timeout_s, trial_memory(size_bytes, config), file_bytes=MAX_ANSWER_BYTES + 2 * size_bytes)
        child = ChildProcess(MODULE, [str(folder)], folder, limits)
        try:
            ended = child.wait(config.trial_timeout_s + 1.0)
        finally:
            child.stop()
        known, certain = _answer(folder, ended, config)
        if isinstance(known, ArtifactInvalid) or asked is None:
            return known, certain, None
        try:
            changes = msgspec.json.decode((folder / CHANGES).read_bytes(), type=Changes)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return ArtifactInvalid(f"model must open and run within its limits, but {_why(ended, config)}"), False, None
        return known, certain, Adopted((folder / MODEL).read_bytes(), **msgspec.structs.asdict(changes))


def _beside_bytes(asked: Adoption, config: ModelsConfig) -> int:
    """Return the bytes of the files beside a model that bear its name, at most as many as a model may have."""
    if asked.beside is None:
        return 0
    file = Path(asked.beside)
    names = [one for one in os.listdir(file.parent) if one.startswith(file.stem) and one != file.name]
    return min(sum((file.parent / one).lstat().st_size for one in names), config.max_bytes)


def _answer(folder: Path, ended: Ended | None, config: ModelsConfig) -> tuple[Seen | ArtifactInvalid, bool]:
    if ended is not None and ended.reason == "ok":
        try:
            if (folder / REFUSED).exists():
                refusal = msgspec.json.decode((folder / REFUSED).read_bytes(), type=Refusal)
                return (ModelUnsupported if refusal.unsupported else ArtifactInvalid)(refusal.message), True
            return msgspec.json.decode((folder / SEEN).read_bytes(), type=Seen), True
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            log.warning("the trial of a model gave no readable answer")
    return ArtifactInvalid(f"model must open and run within its limits, but {_why(ended, config)}"), False


def _why(ended: Ended | None, config: ModelsConfig) -> str:
    if ended is None or ended.reason == "timeout":
        return f"it took longer than {config.trial_timeout_s:g} s (models.trial_timeout_s)"
    if ended.reason == "memory":
        return "it took more memory than a file of its size may (models.trial_base_bytes, models.trial_memory_bytes)"
    if ended.code < 0:
        return f"the process that tried it was ended by signal {-ended.code}"
    last = ascii(ended.tail.rstrip().rsplit("\n", 1)[-1][-300:])
    return f"the process that tried it ended with {ended.code}: {last}"


def main(arguments: list[str]) -> int:
    """Try the model in the folder and write what was seen; return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write(f"usage: python -m {MODULE} FOLDER\n")
        return 2
    folder = Path(arguments[0])
    from ..compression.trial import try_model

    try:
        data = (folder / MODEL).read_bytes()
        if (folder / ASKED).exists():
            from ..compression.adoption import adopt

            made = adopt(data, msgspec.json.decode((folder / ASKED).read_bytes(), type=Adoption))
            (folder / CHANGES).write_bytes(msgspec.json.encode(Changes(made.notes, made.classes, made.features, made.categories)))
            if made.onnx != data:
                data = made.onnx
                (folder / MODEL).write_bytes(data)
        seen = try_model(data)
    except ArtifactInvalid as problem:
        refusal = Refusal(isinstance(problem, ModelUnsupported), str(problem))
        (folder / REFUSED).write_bytes(msgspec.json.encode(refusal))
        return 0
    (folder / SEEN).write_bytes(msgspec.json.encode(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
