"""The artifact store: models by the sha256 of their bytes, each with its manifest, in a directory or behind any fsspec URL."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem

from ..schemas.errors import ArtifactInvalid, NotFound
from ..schemas.manifest import Manifest

_DIGEST = re.compile(r"[0-9a-f]{64}")
MODEL, MANIFEST = "model.onnx", "manifest.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """Say where an artifact lies."""

    digest: str
    uri: str
    size_bytes: int


def digest_of(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


class ArtifactStore:
    """Keep artifacts under `url`: `sha256/<two digits>/<digest>/model.onnx` and `manifest.json`."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)

    def put(self, onnx: bytes, manifest: Manifest) -> Stored:
        """Store the model and its manifest; what is there already and sound stays as it is.

        Raises ArtifactInvalid where the manifest is of other bytes.
        """
        digest = digest_of(onnx)
        if manifest.digest != digest or manifest.size_bytes != len(onnx):
            raise ArtifactInvalid(f"manifest must be of digest {digest} and {len(onnx)} bytes, got {manifest.digest}")
        # The manifest comes last: where it is, the model is whole.
        if self._read(digest, MODEL) != onnx:
            self._write(digest, MODEL, onnx)
        if not self._has_manifest(digest):
            self._write(digest, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        return Stored(digest, self._fs.unstrip_protocol(self._path(digest, MODEL)), len(onnx))

    def get(self, digest: str) -> bytes:
        """Return the model's bytes; raises NotFound, or ArtifactInvalid where they are not of this digest."""
        data = self._read(digest, MODEL)
        if data is None:
            raise NotFound(f"artifact {digest} is not in {self._root}")
        if digest_of(data) != digest:
            raise ArtifactInvalid(f"artifact must have digest {digest}, got {digest_of(data)} ({self._path(digest, MODEL)})")
        return data

    def manifest(self, digest: str) -> Manifest:
        """Return the manifest; raises NotFound, or ArtifactInvalid where it is none of this digest."""
        data = self._read(digest, MANIFEST)
        if data is None:
            raise NotFound(f"manifest of {digest} is not in {self._root}")
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise ArtifactInvalid(f"manifest must be readable: {problem} ({self._path(digest, MANIFEST)})") from problem
        if manifest.digest != digest:
            raise ArtifactInvalid(f"manifest must be of digest {digest}, got {manifest.digest} ({self._path(digest, MANIFEST)})")
        return manifest

    def _has_manifest(self, digest: str) -> bool:
        try:
            self.manifest(digest)
        except (NotFound, ArtifactInvalid):
            return False
        return True

    def _path(self, digest: str, name: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise ArtifactInvalid(f"digest must be 64 hexadecimal digits, got {digest[:80]!r}")
        return f"{self._root.rstrip('/')}/sha256/{digest[:2]}/{digest}/{name}"

    def _read(self, digest: str, name: str) -> bytes | None:
        try:
            data: bytes = self._fs.cat_file(self._path(digest, name))
        except FileNotFoundError:
            return None
        return data

    def _write(self, digest: str, name: str, data: bytes) -> None:
        path = self._path(digest, name)
        if self._local:
            write_durably(Path(path), data)
            return
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(path, data)


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
