"""Positions: where in the log a row lies, as events tell it."""

from __future__ import annotations

from ..schemas.events import Position
from ..schemas.topics import topic_name
from .alarms import Place


class Positions:
    """The input topics of one partition."""

    def __init__(self, prefix: str, partition: int) -> None:
        self.partition = partition
        self.topics = {kind: topic_name(prefix, kind) for kind in ("predictions", "labels")}

    def of(self, kind: str, place: Place) -> Position:
        """Return the position of a row's prediction or label."""
        offset = place.label_offset if kind == "labels" else place.offset
        return Position(topic=self.topics[kind], partition=self.partition, offset=offset, ts=place.ts)
