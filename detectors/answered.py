"""Answered: the newest labels that came before their first prediction, kept for other versions that answer the same request."""

from __future__ import annotations

from typing import Any

import msgspec

from ..schemas.events import Scalar

MOST_ANSWERED = 1_000


class Answer(msgspec.Struct, array_like=True):
    """A label that a prediction was joined with, and where it stands."""

    value: Scalar
    offset: int
    time_ms: int


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, Answer]])


class Answered:
    """Labels by id, oldest first, for as long as predictions are remembered."""

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self._held: dict[bytes, Answer] = {}
        self._is_dirty = False

    def find(self, ident: bytes, now_ms: int) -> Answer | None:
        """Return the label of an id."""
        found = self._held.get(ident)
        return found if found is not None and now_ms - found.time_ms <= self.window_ms else None

    def add(self, ident: bytes, value: Any, offset: int, time_ms: int) -> Answer:
        """Keep a label; of too many the oldest gives way."""
        self._held.pop(ident, None)
        answer = self._held[ident] = Answer(value, offset, time_ms)
        if len(self._held) > MOST_ANSWERED:
            del self._held[next(iter(self._held))]
        self._is_dirty = True
        return answer

    def parts(self, *, whole: bool) -> dict[str, bytes]:
        """Return the labels as one part where they changed (always where `whole`)."""
        return {"a": _encode(list(self._held.items()))} if self._is_dirty or (whole and self._held) else {}

    def clean(self) -> None:
        """Count everything as written."""
        self._is_dirty = False

    def restore(self, data: bytes | None) -> None:
        """Take over a part; raises msgspec.DecodeError."""
        self._held = {} if data is None else dict(_decoder.decode(data))
