"""Find out where a partition stands when it is assigned: pointer, state, offsets; refuse what does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..detectors.monitor import Monitor
from ..schemas.errors import SnapshotInvalid
from ..schemas.topics import DATA_PLANE_INPUTS
from ..settings import Settings
from .checkpoint import StateLog, decode_pointer, is_live, read_state
from .client_settings import log
from .held_partition import HeldPartition
from .plane_inputs import Group, Readers


class Pointed(NamedTuple):
    """What committed offsets point to. `live`: whoever worked on from there ended otherwise than in peace, or works still."""

    seq: int
    offsets: dict[str, int]
    live: bool


Known = Pointed | None


class Restorer:
    """What restores partitions for one data plane; `monitor` is the kind of monitor that they have."""

    def __init__(self, settings: Settings, group: Group, readers: Readers, monitor: type[Monitor] = Monitor) -> None:
        self._settings = settings
        self._group = group
        self._readers = readers
        self._monitor = monitor

    def pointers(self, partitions: Iterable[int]) -> dict[int, Known]:
        """Return what the committed offsets point to, None where there are none; raises SnapshotInvalid for offsets not ours."""
        wanted = list(partitions)
        return {partition: self._pointer(partition, found) for partition, found in self._group.committed(wanted).items()}

    def restore(
        self, partitions: set[int], kept: Mapping[int, HeldPartition], keep_alive: Callable[[], bool]
    ) -> dict[int, HeldPartition] | None:
        """Return the partitions as the last commit left them, or None once `keep_alive` returned False.

        Raises SnapshotInvalid for state that must not be trusted, unless the settings say to rebuild from the earliest offset.
        """
        try:
            known = self.pointers(partitions)
        except SnapshotInvalid as problem:
            known = self._without_pointer(partitions, problem)
        pointers = {p: pointer for p, pointer in known.items() if pointer is not None}
        held = {
            p: kept[p] for p in partitions if p in kept and p in pointers and kept[p].matches(pointers[p].seq, pointers[p].offsets)
        }
        missing = {p: pointers[p].seq if p in pointers else None for p in partitions if p not in held}
        if missing:
            patience_s = 2 * self._settings.data_plane.transaction_timeout_s
            logs = read_state(self._settings, missing, keep_alive, patience_s)
            if logs is None:
                return None
            held |= {p: self._held(p, known[p], state) for p, state in logs.items()}
        for partition, one in held.items():
            pointer = pointers.get(partition)
            one.is_marked = pointer is not None and pointer.live
            # The mark goes with offsets, and those with state: the first checkpoint holds that of a monitor which has seen nothing.
            one.dirty = one.dirty or pointer is None
        return held

    def _pointer(self, partition: int, found: Mapping[str, tuple[int, str | None]]) -> Known:
        if not found:
            return None
        where = f"group {self._settings.monitor_group}, partition {partition}"
        seqs = {decode_pointer(metadata, where) for _, metadata in found.values()}
        if len(seqs) != 1 or found.keys() != set(DATA_PLANE_INPUTS):
            raise SnapshotInvalid(f"committed offsets must be of one checkpoint, got {dict(found)} ({where})")
        live = any(is_live(metadata) for _, metadata in found.values())
        return Pointed(seqs.pop(), {kind: offset for kind, (offset, _) in found.items()}, live)

    def _without_pointer(self, partitions: set[int], problem: SnapshotInvalid) -> dict[int, Known]:
        if self._settings.data_plane.on_bad_state == "refuse":
            raise problem
        log.error("rebuilding: %s", problem)
        return dict.fromkeys(partitions)

    def _held(self, partition: int, known: Known, state: StateLog) -> HeldPartition:
        first = self._readers.first_offsets(partition)
        try:
            return self._restored(partition, known, state, first)
        except SnapshotInvalid as problem:
            if self._settings.data_plane.on_bad_state == "refuse":
                raise
            log.error("rebuilding partition %d from its earliest offsets: %s", partition, problem)
        seq = max(0 if known is None else known.seq, 0 if state.manifest is None else state.manifest.seq)
        rebuilt = HeldPartition(partition, self._fresh(partition), seq, first)
        rebuilt.old_parts = tuple(state.parts)
        return rebuilt

    def _restored(self, partition: int, known: Known, state: StateLog, first: Mapping[str, int]) -> HeldPartition:
        where = f"{self._settings.topic('state')}/{partition}"
        if known is None:
            if state.manifest is not None:
                raise SnapshotInvalid(
                    f"group must have offsets where there is state, got none: they expired or were deleted ({where})"
                )
            return HeldPartition(partition, self._fresh(partition), 0, dict(first))
        seq, offsets = known.seq, known.offsets
        gone = {kind: offset for kind, offset in offsets.items() if offset < first[kind]}
        if gone:
            raise SnapshotInvalid(
                f"records after the committed offsets must still be there, got {gone}, the earliest are {dict(first)}"
            )
        ledger = state.check(seq, offsets, where)
        monitor = self._monitor.restore(self._settings.monitor, self._settings.topics.prefix, partition, state.whole())
        return HeldPartition(partition, monitor, seq, offsets, ledger)

    def _fresh(self, partition: int) -> Monitor:
        return self._monitor(self._settings.monitor, self._settings.topics.prefix, partition)
