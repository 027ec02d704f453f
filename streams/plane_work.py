"""The work on a partition: records through its monitor, what follows from them into the open transaction; no record ends it.

A fault of the monitor, of an output or of the state is a `MonitorFault`: the partition is rolled back, and goes on carefully. So does
one whose last process ended otherwise than in peace. Carefully: each batch is tried in a copy of the process first (`trial.py`), state
and all. A batch that fails there is halved, down to the record, which becomes a dead letter and leaves a tombstone in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..detectors.effects import Effects
from ..schemas.errors import DriftloopError, SnapshotInvalid
from ..schemas.records import Batch
from ..schemas.topics import DATA_PLANE_INPUTS
from ..settings import Settings
from .client_settings import log
from .commit_policy import CommitPolicy
from .drift_lines import drift_lines
from .held_partition import HeldPartition, letter_of, sampled_bytes
from .placement import Placement
from .plane_outputs import PlaneOutputs
from .plane_producer import PlaneProducer
from .transport import Outgoing
from .trial import TIMEOUT_S, fault_of


class MonitorFault(DriftloopError):
    """A fault of ours in what a `partition` was given: its state is not to be used any more."""

    def __init__(self, partition: int, message: str) -> None:
        self.partition = partition
        super().__init__(message)


class Done(NamedTuple):
    """What was done: records and pairs; `busy` where nothing was, and yet there is more to do."""

    records: int = 0
    pairs: int = 0
    busy: bool = False


class PlaneWork:
    """The work on partitions for one data plane."""

    def __init__(self, settings: Settings, producer: PlaneProducer, policy: CommitPolicy, outputs: PlaneOutputs) -> None:
        self._settings = settings
        self._producer = producer
        self._policy = policy
        self._outputs = outputs
        self._topics = {kind: settings.topic(kind) for kind in DATA_PLANE_INPUTS}
        self._placement = Placement(settings.topics.partitions)
        self._patience_s = min(TIMEOUT_S, settings.data_plane.max_poll_interval_s / 4)

    def process(self, held: HeldPartition) -> Done:
        """Take what the partition has next; raises MonitorFault, and what the producer raises."""
        if held.careful and held.is_idle():
            held.careful = 0
        batch = held.take()
        if not len(batch):
            if held.dirty and not self._producer.in_transaction:
                self._producer.begin()
                self._policy.progressed(time.monotonic(), 0, 0, alert=False)
            return Done()
        if held.careful:
            why = fault_of(lambda: self._rehearse(held, batch), self._patience_s)
            if why is not None:
                return self._narrow(held, batch, why)
        return self._take(held, batch)

    def save(self, held: HeldPartition) -> int:
        """Write the partition's state and manifest into the open transaction; return how many bytes."""
        self._save(held, self._outputs.of_state)
        state_bytes, held.state_bytes = held.state_bytes, 0
        return state_bytes

    def _save(self, held: HeldPartition, state: Callable[[HeldPartition], Iterator[Outgoing]]) -> None:
        for record in self._guarded(held, lambda: list(state(held))):
            self._producer.produce(record.topic, held.partition, record.key, record.value)
            held.state_bytes += len(record.value or b"")

    def _take(self, held: HeldPartition, batch: Batch) -> Done:
        self._producer.begin()
        # Half a batch may be in the monitor when it fails.
        held.dirty = True
        effects: Effects = self._guarded(held, lambda: held.monitor.process(batch))
        records, has_drift = self._guarded(held, lambda: self._outputs.of_effects(held, effects))
        for record in records:
            self._producer.produce(record.topic, held.partition, record.key, record.value, record.headers)
        self._save(held, self._outputs.of_new)
        held.lines += [*effects.notices, *drift_lines(effects.events)]
        held.passed(batch)
        self._placement.note(batch, held.partition)
        self._policy.progressed(time.monotonic(), len(batch), sampled_bytes(batch), alert=has_drift)
        return Done(len(batch), effects.counters.get("joined", 0))

    def _guarded(self, held: HeldPartition, call: Callable[[], Any]) -> Any:
        """Run what uses no client of Kafka's."""
        try:
            return call()
        except Exception as fault:
            log.exception("monitor of partition %d failed", held.partition)
            raise MonitorFault(
                held.partition,
                f"monitor must take any record, got {type(fault).__name__}: {fault} "
                f"(partition {held.partition}, offsets from {held.committed} up to {held.offsets})",
            ) from fault

    def _rehearse(self, held: HeldPartition, batch: Batch) -> None:
        """Do all that a batch will ask for, in a copy of the process."""
        self._outputs.of_effects(held, held.monitor.process(batch))
        list(self._outputs.of_state(held))

    def _narrow(self, held: HeldPartition, batch: Batch, why: str) -> Done:
        """Put a batch that fails back in halves; of a single record tell the letter."""
        if len(batch) > 1:
            held.split(batch)
            return Done(busy=True)
        letter = letter_of(batch, self._topics, held.partition, why)
        blamed = held.blamed.get((letter.topic, letter.offset))
        if blamed is None:
            log.error("%s/%d offset %d becomes a dead letter: %s", letter.topic, letter.partition, letter.offset, why)
            held.blame(batch, letter)
            return Done(busy=True)
        # Not even a tombstone can be taken: the record is left out of the log, provided that something else could be taken.
        broken = fault_of(lambda: self._rehearse(held, Batch()), self._patience_s)
        if broken is not None:
            raise SnapshotInvalid(f"state must be usable, got {broken} (partition {held.partition}, offsets {held.committed})")
        self._producer.begin()
        record = self._outputs.of_letter(held.told(letter))
        self._producer.produce(record.topic, held.partition, record.key, record.value, record.headers)
        held.passed(batch)
        self._policy.progressed(time.monotonic(), 1, 0, alert=False)
        return Done(1)
