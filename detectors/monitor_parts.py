"""Parts of a monitor: what of its state changed since the last save, sealed, and how it is put together again.

`i/`: intake and join. `i/s` clock, order and counters; `i/t/<slot>` a model; `i/e/<chunk>` early labels; `i/a` labels that were early;
`i/p/`, `i/m/` the join buffer.
`w/`: the watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from ..schemas.errors import SnapshotInvalid
from .answered import Answered
from .early_labels import EarlyLabels
from .model_table import ModelTable
from .over_limit import LimitNotes
from .pending import Pending
from .pending_parts import PendingParts
from .snapshot import Seal
from .stream_time import StreamTime
from .watch import Watch

INTAKE, WATCH = "i/", "w/"
_encode = msgspec.msgpack.Encoder().encode


class Saved(Protocol):
    """What of a monitor is saved."""

    clocks: dict[str, StreamTime]
    order: int
    now_ms: int
    counters: dict[str, int]
    notices: list[str]
    table: ModelTable
    limits: LimitNotes
    early: EarlyLabels
    buffer: Pending
    watch: Watch

    @property
    def answered(self) -> Answered:
        """Return the labels that came before their first prediction."""

    def resume(self, clocks: Mapping[str, Sequence[int]], order: int, now_ms: int, counters: dict[str, int]) -> None:
        """Go on from a restored clock."""


class MonitorParts:
    """What changed of a monitor's state."""

    def __init__(self, monitor: Saved) -> None:
        self.monitor = monitor
        self.seal = Seal()
        self.buffer = PendingParts(monitor.buffer)
        self._clock = b""

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return the sealed parts that changed since the last call, None for a deleted one."""
        monitor = self.monitor
        found: dict[str, bytes | None] = {f"i/{name}": data for name, data in self.buffer.take().items()}
        found |= {f"i/e/{name}": data for name, data in monitor.early.parts(whole=False).items()}
        monitor.early.clean()
        found |= {f"i/{name}": data for name, data in monitor.answered.parts(whole=False).items()}
        monitor.answered.clean()
        found |= {f"i/t/{slot}": data for slot, data in monitor.table.take_dirty().items()}
        clock = self._encoded_clock()
        if clock != self._clock:
            found["i/s"] = self._clock = clock
        found |= monitor.watch.take_dirty()
        return self._sealed(found)

    def take_new(self, most: int) -> dict[str, bytes | None]:
        """Return the sealed parts of at most so many models that were never saved."""
        slots = list(islice(self.monitor.watch.roster.unsaved, most))
        if not slots:
            return {}
        found: dict[str, bytes | None] = {f"i/t/{slot}": data for slot, data in self.monitor.table.take_some(slots).items()}
        return self._sealed(found | self.monitor.watch.take_new(slots))

    def _sealed(self, found: dict[str, bytes | None]) -> dict[str, bytes | None]:
        return {name: None if data is None else self.seal.close(data) for name, data in found.items()}

    def whole(self) -> dict[str, bytes]:
        """Return all sealed parts; the next `take_dirty` is not changed by it."""
        monitor = self.monitor
        found: dict[str, bytes | None] = {f"i/{name}": data for name, data in self.buffer.whole().items()}
        found |= {f"i/e/{name}": data for name, data in monitor.early.parts(whole=True).items()}
        found |= {f"i/{name}": data for name, data in monitor.answered.parts(whole=True).items()}
        found |= {f"i/t/{slot}": data for slot, data in monitor.table.whole().items()}
        found |= {"i/s": self._encoded_clock(), **monitor.watch.whole()}
        return {name: self.seal.close(data) for name, data in found.items() if data is not None}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Put the state of a new monitor together; raises SnapshotInvalid."""
        if not parts:
            return
        bodies = {name: self.seal.open(name, data) for name, data in parts.items()}
        try:
            self._restore({name.removeprefix(INTAKE): body for name, body in bodies.items() if name.startswith(INTAKE)})
            watched = {name: body for name, body in bodies.items() if name.startswith(WATCH)}
            self.monitor.notices += self.monitor.watch.restore(watched)
        except (msgspec.DecodeError, KeyError, ValueError, TypeError, IndexError) as problem:
            raise SnapshotInvalid(f"state must be whole: {type(problem).__name__}: {problem}") from problem

    def _restore(self, parts: dict[str, bytes]) -> None:
        monitor = self.monitor
        self._clock = parts["s"]
        clocks, order, now_ms, counters, tail, head, places, limits = msgspec.msgpack.decode(parts["s"])
        monitor.table.restore({int(name[2:]): body for name, body in parts.items() if name.startswith("t/")}, places)
        monitor.limits.restore(limits)
        monitor.early.restore({name[2:]: body for name, body in parts.items() if name.startswith("e/")})
        monitor.answered.restore(parts.get("a"))
        self.buffer.restore({name: body for name, body in parts.items() if name[:2] in ("p/", "m/")}, tail, head)
        monitor.resume(clocks, order, now_ms, counters)

    def _encoded_clock(self) -> bytes:
        monitor, buffer = self.monitor, self.monitor.buffer
        clocks = {kind: clock.state for kind, clock in monitor.clocks.items()}
        clock = clocks, monitor.order, monitor.now_ms, monitor.counters, buffer.tail, buffer.head
        return _encode((*clock, monitor.table.place_state(), monitor.limits.state()))
