"""Early labels: labels whose prediction has not come, kept with their record until it comes or they are too old."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..schemas.dead_letters import DeadLetter
from ..schemas.events import Scalar
from .pending import Ids

CHUNK_BYTES = 262_144
CHUNK_LABELS = 512
PER_LABEL_BYTES = 1_000
PER_HEADER_BYTES = 150
MAX_LABEL_BYTES = CHUNK_BYTES // 2


class EarlyLabel(msgspec.Struct, array_like=True):
    """One early label: `letter` is what becomes of its record if nothing joins it."""

    ident: bytes
    model: str
    value: Scalar
    order: int
    time_ms: int
    letter: DeadLetter
    chunk: int = 0

    size_bytes: int = 0

    def __post_init__(self) -> None:
        """Reckon about how many bytes it takes."""
        if not self.size_bytes:
            letter = self.letter
            said = sum(PER_HEADER_BYTES + len(name) + len(value or b"") for name, value in letter.headers)
            self.size_bytes = PER_LABEL_BYTES + len(letter.value or b"") + len(letter.key or b"") + said


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[EarlyLabel])


class EarlyLabels:
    """Early labels by id, oldest first: at most `limit` of them and `limit_bytes` with their records."""

    def __init__(self, limit_ms: int, limit: int, limit_bytes: int) -> None:
        self.limit_ms = limit_ms
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        # The first key of a plain dict is found behind all those that were taken from its front.
        self._held: OrderedDict[bytes, EarlyLabel] = OrderedDict()
        self._lows: Counter[int] = Counter()
        self._chunks: dict[int, dict[bytes, EarlyLabel]] = {}
        self._dirty: set[int] = set()
        self._chunk = 0
        self._chunk_bytes = 0

    def __len__(self) -> int:
        """Return the number of labels kept."""
        return len(self._held)

    def among(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which of these ids may have a label here, by their first 64 bits."""
        # Work must grow with the rows at hand, not with the labels held.
        return np.fromiter(map(self._lows.__contains__, ids[:, 0].tolist()), np.bool_, len(ids))

    def find(self, ident: bytes) -> EarlyLabel | None:
        """Return the label of an id."""
        return self._held.get(ident)

    def add(self, label: EarlyLabel) -> list[EarlyLabel]:
        """Keep a label; return the oldest ones that had to give way."""
        size_bytes = label.size_bytes
        if self._chunk_bytes + size_bytes > CHUNK_BYTES or len(self._chunks.get(self._chunk, ())) >= CHUNK_LABELS:
            self._chunk, self._chunk_bytes = self._chunk + 1, 0
        self._chunk_bytes += size_bytes
        label.chunk = self._chunk
        self._hold(label)
        self._dirty.add(label.chunk)
        gone = []
        while len(self._held) > self.limit or (self.size_bytes > self.limit_bytes and len(self._held) > 1):
            gone.append(self.remove(next(iter(self._held))))
        return gone

    def _hold(self, label: EarlyLabel) -> None:
        self._held[label.ident] = label
        self._lows[_low(label.ident)] += 1
        self.size_bytes += label.size_bytes
        self._chunks.setdefault(label.chunk, {})[label.ident] = label

    def remove(self, ident: bytes) -> EarlyLabel:
        """Let go of the label of an id."""
        label = self._held.pop(ident)
        low = _low(ident)
        self._lows[low] -= 1
        if not self._lows[low]:
            del self._lows[low]
        self.size_bytes -= label.size_bytes
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
            self._hold(label)
        # The newest chunk is closed: how full it is was not written down.
        self._chunk = max(self._chunks, default=-1) + 1


def _low(ident: bytes) -> int:
    return int.from_bytes(ident[:8], "little")
