"""Snapshots: every part of saved state in an envelope that says what wrote it, so that nothing is trusted that must not be."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import msgspec
import xxhash

from .. import __version__
from ..schemas.errors import SnapshotInvalid

SCHEMA = 2
MAX_PART_BYTES = 900_000
DETECTORS = "w/"


class _Envelope(msgspec.Struct, array_like=True, frozen=True):
    schema: int
    driftloop: str
    river: str
    checksum: int
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Envelope)
_whole = msgspec.msgpack.Decoder(dict[str, bytes])


class Seal:
    """The envelope of parts: what wrote them. The settings that a part depends on lie inside it, as it alone begins anew under others."""

    def __init__(self, river: str | None = None) -> None:
        self.river = version("river") if river is None else river

    def close(self, body: bytes) -> bytes:
        """Return the envelope of a part."""
        return _encode(_Envelope(SCHEMA, __version__, self.river, xxhash.xxh3_64_intdigest(body), body))

    def open(self, name: str, data: bytes) -> bytes:
        """Return the part in an envelope; raises SnapshotInvalid saying what is wrong with it."""
        try:
            found = _decoder.decode(data)
        except msgspec.DecodeError as problem:
            raise SnapshotInvalid(f"state must be a driftloop snapshot, got {problem} (part {name})") from problem
        if found.schema != SCHEMA:
            raise SnapshotInvalid(
                f"state must be of schema {SCHEMA}, got {found.schema} of driftloop {found.driftloop} (part {name})"
            )
        if xxhash.xxh3_64_intdigest(found.body) != found.checksum:
            raise SnapshotInvalid(f"state must match its checksum {found.checksum:016x}, it is damaged (part {name})")
        if name.startswith(DETECTORS) and _minor(found.river) != _minor(self.river):
            raise SnapshotInvalid(f"state must be of River {_minor(self.river)}, got {found.river} (part {name})")
        return found.body


def pack_parts(parts: Mapping[str, bytes]) -> bytes:
    """Return all parts as one."""
    return _encode(dict(parts))


def unpack_parts(data: bytes) -> dict[str, bytes]:
    """Return the parts that `pack_parts` put together; raises SnapshotInvalid."""
    try:
        return _whole.decode(data)
    except msgspec.DecodeError as problem:
        raise SnapshotInvalid(f"a snapshot must be a map of parts, got {problem}") from problem


def _minor(release: str) -> str:
    return ".".join(release.split(".")[:2])
