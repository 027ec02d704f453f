"""Early labels: labels whose prediction has not come, kept with their record until it comes or they are too old."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..schemas.dead_letters import DeadLetter
from ..schemas.events import Scalar

CHUNK_BYTES = 262_144
CHUNK_LABELS = 512


class EarlyLabel(msgspec.Struct, array_like=True):
    """Be one early label: `letter` is what becomes of its record if nothing joins it."""

    ident: bytes
    model: str
    value: Scalar
    order: int
    time_ms: int
    letter: DeadLetter
    chunk: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[EarlyLabel])


class EarlyLabels:
    """Keep early labels by id, oldest first."""

    def __init__(self, limit_ms: int, limit: int) -> None:
        self.limit_ms = limit_ms
        self.limit = limit
        self._held: dict[bytes, EarlyLabel] = {}
        self._chunks: dict[int, dict[bytes, EarlyLabel]] = {}
        self._dirty: set[int] = set()
        self._chunk = 0
        self._chunk_bytes = 0

    def __len__(self) -> int:
        """Return the number of labels kept."""
        return len(self._held)

    def lows(self) -> set[int]:
        """Return the first 64 bits of each id."""
        return {int.from_bytes(ident[:8], "little") for ident in self._held}

    def find(self, ident: bytes) -> EarlyLabel | None:
        """Return the label of an id."""
        return self._held.get(ident)

    def add(self, label: EarlyLabel) -> EarlyLabel | None:
        """Keep a label; return the oldest where it had to give way."""
        letter = label.letter
        size_bytes = 200 + len(letter.value or b"") + sum(len(name) + len(value or b"") for name, value in letter.headers)
        if self._chunk_bytes + size_bytes > CHUNK_BYTES or len(self._chunks.get(self._chunk, ())) >= CHUNK_LABELS:
            self._chunk, self._chunk_bytes = self._chunk + 1, 0
        self._chunk_bytes += size_bytes
        label.chunk = self._chunk
        self._held[label.ident] = label
        self._chunks.setdefault(label.chunk, {})[label.ident] = label
        self._dirty.add(label.chunk)
        return self.remove(next(iter(self._held))) if len(self._held) > self.limit else None

    def remove(self, ident: bytes) -> EarlyLabel:
        """Let go of the label of an id."""
        label = self._held.pop(ident)
        del self._chunks[label.chunk][ident]
        self._dirty.add(label.chunk)
        return label

    def expire(self, now_ms: int) -> list[EarlyLabel]:
        """Let go of the labels that are too old at `now_ms`, oldest first."""
        found = []
        for ident, label in self._held.items():
            if now_ms - label.time_ms <= self.limit_ms:
                break
            found.append(ident)
        return [self.remove(ident) for ident in found]

    def parts(self, *, whole: bool) -> dict[str, bytes | None]:
        """Return the changed chunks (all where `whole`) by number, None for an empty one."""
        chunks: Iterable[int] = self._chunks if whole else self._dirty
        return {str(chunk): _encode(list(held.values())) if (held := self._chunks.get(chunk)) else None for chunk in sorted(chunks)}

    def clean(self) -> None:
        """Count everything as written."""
        for chunk in self._dirty:
            if not self._chunks.get(chunk):
                self._chunks.pop(chunk, None)
        self._dirty.clear()

    def restore(self, parts: dict[str, Any]) -> None:
        """Take over chunks; raises msgspec.DecodeError."""
        labels = [label for data in parts.values() for label in _decoder.decode(data)]
        for label in sorted(labels, key=lambda label: label.order):
            self._held[label.ident] = label
            self._chunks.setdefault(label.chunk, {})[label.ident] = label
        # The newest chunk is closed: how full it is was not written down.
        self._chunk = max(self._chunks, default=-1) + 1
