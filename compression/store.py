"""The artifact store: models by the sha256 of their bytes, each with its manifests, in a directory or behind any fsspec URL."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem

from ..schemas.errors import ArtifactInvalid, DriftloopError, NotFound, StoreUnavailable
from ..schemas.events import Signature
from ..schemas.manifest import Manifest
from ..schemas.redaction import secrets_of, shown_url, without

P = ParamSpec("P")
T = TypeVar("T")
_DIGEST = re.compile(r"[0-9a-f]{64}")
MODEL, MANIFEST = "model.onnx", "manifest.json"
MAX_MODEL_BYTES = 1024 * 1024 * 1024
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an artifact lies, and the sha256 of its manifest."""

    digest: str
    uri: str
    size_bytes: int
    manifest_digest: str


def digest_of(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def _hiding_secrets(method: Callable[Concatenate[ArtifactStore, P], T]) -> Callable[Concatenate[ArtifactStore, P], T]:
    """Let no error of a method, nor its cause, hold what the store's URL holds of secrets: paths of some file systems have it in them."""

    @wraps(method)
    def hiding(store: ArtifactStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(store, *args, **kwargs)
        except DriftloopError as problem:
            if not store._secrets:
                raise
            hidden = type(problem)(without(str(problem), store._secrets))
        # Behind the handler it has no context: a log with a traceback would show what the file system's own error holds.
        raise hidden

    return hiding


class ArtifactStore:
    """Artifacts under `url`: `sha256/<two digits>/<digest>/model.onnx` and `manifest.json`.

    Where one artifact was registered for several models or signatures, the later ones have manifests of their own beside it.
    """

    def __init__(self, url: str) -> None:
        self._secrets = secrets_of(url, {})
        self._open(url)

    @_hiding_secrets
    def _open(self, url: str) -> None:
        with _reached(url):
            self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)

    @_hiding_secrets
    def put(self, onnx: bytes, manifest: Manifest) -> Stored:
        """Store the model and its manifest; what is there already and sound stays as it is.

        Raises ArtifactInvalid where the manifest is of other bytes, StoreUnavailable where the store is full, read-only or away.
        """
        digest = digest_of(onnx)
        if manifest.digest != digest or manifest.size_bytes != len(onnx):
            raise ArtifactInvalid(f"manifest must be of digest {digest} and {len(onnx)} bytes, got {manifest.digest}")
        # The manifest comes last: where it is, the model is whole.
        if self._held(digest, MODEL, len(onnx)) != onnx:
            self._write(digest, MODEL, onnx)
        name, told = self._manifest_place(manifest)
        if told is None:
            told = msgspec.json.format(msgspec.json.encode(manifest))
            self._write(digest, name, told)
        uri = without(self._fs.unstrip_protocol(self._path(digest, MODEL)), self._secrets)
        return Stored(digest, uri, len(onnx), digest_of(told))

    @_hiding_secrets
    def get(self, digest: str, size_bytes: int | None = None) -> bytes:
        """Return the model's bytes; raises NotFound, or ArtifactInvalid where they are not of this digest and, if given, size.

        What is no plain file of at most that size is not read.
        """
        data = self._read(digest, MODEL, MAX_MODEL_BYTES if size_bytes is None else min(size_bytes, MAX_MODEL_BYTES))
        if data is None:
            raise NotFound(f"artifact {digest} is not in {self._root}")
        if size_bytes is not None and len(data) != size_bytes:
            raise ArtifactInvalid(f"artifact must have {size_bytes} bytes, got {len(data)} ({self._path(digest, MODEL)})")
        if digest_of(data) != digest:
            raise ArtifactInvalid(f"artifact must have digest {digest}, got {digest_of(data)} ({self._path(digest, MODEL)})")
        return data

    @_hiding_secrets
    def manifest(self, digest: str) -> Manifest:
        """Return the first manifest; raises NotFound, or ArtifactInvalid where it is none of this digest."""
        return self._manifest(digest, MANIFEST)[0]

    @_hiding_secrets
    def check_manifest(self, digest: str, model: str, signature: Signature, manifest_digest: str | None = None) -> Manifest:
        """Return the manifest that says the same of the artifact as its registration does.

        Raises NotFound without one, ArtifactInvalid where it is of another model, signature or, if given, digest of its own.
        """
        found, said = self._manifest(digest, MANIFEST)
        if not _same(found, model, signature):
            try:
                found, said = self._manifest(digest, _own_name(model, signature))
            except NotFound:
                where = self._path(digest, MANIFEST)
                raise ArtifactInvalid(f"manifest must be of model {model!r} with the registered signature ({where})") from None
        if not _same(found, model, signature) or manifest_digest not in (None, said):
            raise ArtifactInvalid(f"manifest must be the one that was registered ({self._path(digest, MANIFEST)})")
        return found

    def _manifest_place(self, manifest: Manifest) -> tuple[str, bytes | None]:
        """Return the name under which a manifest belongs, and the sound one that is there and says the same."""
        for name in (MANIFEST, _own_name(manifest.model, manifest.signature)):
            try:
                known, _ = self._manifest(manifest.digest, name)
            except (NotFound, ArtifactInvalid):
                return name, None
            if _same(known, manifest.model, manifest.signature):
                return name, self._held(manifest.digest, name, MAX_MANIFEST_BYTES)
        return name, None

    def _manifest(self, digest: str, name: str) -> tuple[Manifest, str]:
        path = self._path(digest, name)
        data = self._read(digest, name, MAX_MANIFEST_BYTES)
        if data is None:
            raise NotFound(f"manifest of {digest} is not in {self._root}")
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise ArtifactInvalid(f"manifest must be readable: {problem} ({path})") from problem
        if manifest.digest != digest:
            raise ArtifactInvalid(f"manifest must be of digest {digest}, got {manifest.digest[:80]!r} ({path})")
        return manifest, digest_of(data)

    def _held(self, digest: str, name: str, limit_bytes: int) -> bytes | None:
        """Return what lies there, None where it is nothing that could be meant."""
        try:
            return self._read(digest, name, limit_bytes)
        except ArtifactInvalid:
            return None

    def _path(self, digest: str, name: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise ArtifactInvalid(f"digest must be 64 hexadecimal digits, got {digest[:80]!r}")
        return f"{self._root.rstrip('/')}/sha256/{digest[:2]}/{digest}/{name}"

    def _read(self, digest: str, name: str, limit_bytes: int) -> bytes | None:
        path = self._path(digest, name)
        with _reached(path):
            return self._read_path(path, name, limit_bytes)

    def _read_path(self, path: str, name: str, limit_bytes: int) -> bytes | None:
        try:
            if self._local:
                return read_bounded(Path(path), limit_bytes)
            known = self._fs.info(path)
            if known.get("type") != "file" or (known.get("size") or 0) > limit_bytes:
                raise ArtifactInvalid(f"{name} must be a file of at most {limit_bytes} bytes, got {known.get('size')} ({path})")
            data: bytes = self._fs.cat_file(path, start=0, end=limit_bytes + 1)
        except FileNotFoundError:
            return None
        if len(data) > limit_bytes:
            raise ArtifactInvalid(f"{name} must be a file of at most {limit_bytes} bytes, got more ({path})")
        return data

    def _write(self, digest: str, name: str, data: bytes) -> None:
        path = self._path(digest, name)
        with _reached(path):
            if self._local:
                write_durably(Path(path), data)
                return
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, data)


@contextmanager
def _reached(where: str) -> Iterator[None]:
    """Turn what a file system raises into one error of ours; each of fsspec's has its own."""
    try:
        yield
    except (DriftloopError, MemoryError):
        raise
    except Exception as problem:
        why = problem.strerror if isinstance(problem, OSError) and problem.strerror else f"{type(problem).__name__}: {problem}"
        raise StoreUnavailable(f"store must answer and have room, got: {why} ({shown_url(where)}; store.url)") from problem


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a plain file; raises ArtifactInvalid for anything else, which could block or never end, or a larger one."""
    # Without O_NONBLOCK a FIFO that nobody writes to would hold the caller for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode):
            raise ArtifactInvalid(f"{path.name} must be a plain file ({path})")
        if known.st_size > limit_bytes:
            raise ArtifactInvalid(f"{path.name} must have at most {limit_bytes} bytes, got {known.st_size} ({path})")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(limit_bytes + 1)
    finally:
        os.close(handle)
    if len(data) > limit_bytes:
        raise ArtifactInvalid(f"{path.name} must have at most {limit_bytes} bytes, got more ({path})")
    return data


def _own_name(model: str, signature: Signature) -> str:
    return f"manifest.{digest_of(msgspec.json.encode((model, signature)))[:32]}.json"


def _same(manifest: Manifest, model: str, signature: Signature) -> bool:
    return manifest.model == model and manifest.signature == signature


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` so that after a crash `path` holds all of it or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    # The umask says who may read it, as of any other file.
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        name.replace(path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
