"""The data plane: predictions, labels and models in, drift and metrics out, exactly once; one thread owns it all.

Outputs, dead letters, state and offsets of every partition go in one transaction. Whatever goes wrong, the way back is the same: drop
the monitors touched since the last commit, restore them from the state topic, and read again from the committed offsets. Where the
broker itself was away, every client is made anew as well: some come back from an outage deaf (pulse.py).
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from confluent_kafka import Producer, TopicPartition

from ..detectors.effects import Effects
from ..schemas.dead_letters import dead_letter_headers
from ..schemas.errors import BrokerUnavailable, Conflict, DriftloopError, SlotTaken, TopicMismatch
from ..schemas.records import Batch
from ..schemas.topics import DATA_PLANE_INPUTS, topic_of
from ..settings import Settings
from .checkpoint import MANIFEST_KEY, encode_pointer, part_key
from .client_settings import heartbeat_interval_s, log
from .commit_policy import CommitPolicy
from .held_partition import HeldPartition
from .outgoing import outgoing
from .plane_inputs import Group, Readers
from .plane_producer import INIT_PATIENCE_S, INIT_TIMEOUT_S, MustRollBack, OutcomeUnknown, PlaneProducer
from .plane_restore import Restorer

HOLD_BATCHES = 10
MAX_ROLLBACKS = 8  # in a row
RETRY_S = 1.0
GHOST_S = 60.0
MAX_MISMATCHES = 30  # in a row: a broker that has just started may not know its topics yet


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell what a data plane did in this process; records and pairs count again after a rollback."""

    partitions: tuple[int, ...] = ()
    records: int = 0
    pairs: int = 0
    commits: int = 0
    rollbacks: int = 0
    restored_s: float = 0.0
    last_commit_at: float | None = None


class DataPlane:
    """Monitor the partitions that the group gives to this slot; `make_producer` builds the transactional client."""

    def __init__(self, settings: Settings, make_producer: Callable[..., Any] = Producer) -> None:
        self.settings = settings
        self.config = settings.data_plane
        self.progress = Progress()
        self._producer = PlaneProducer(settings, make_producer)
        self._group: Group
        self._readers: Readers
        self._restorer: Restorer
        self._policy = CommitPolicy(self.config)
        self._held: dict[int, HeldPartition]
        self._kept: dict[int, HeldPartition]
        self._waiting: set[int]
        self._failed: Exception | None
        self._polled_at = 0.0
        self._was_up = False
        self._forget()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then commit what was begun. Waits out a broker that goes away once it was there.

        Raises SlotTaken where another process has the slot, Conflict where the broker refuses what is written, SnapshotInvalid,
        TopicMismatch, BrokerUnavailable for a broker that never was there, DriftloopError for a fault of the monitor.
        """
        mismatches, renewed_at = 0, -math.inf
        while True:
            self._forget()
            try:
                self._work_until(stop)
                return
            except (BrokerUnavailable, TopicMismatch) as problem:
                mismatches = mismatches + 1 if isinstance(problem, TopicMismatch) else 0
                if not self._was_up or stop.is_set() or mismatches > MAX_MISMATCHES:
                    raise
                log.error("going on with new clients in %g s: %s", RETRY_S, problem)
                renewed_at = time.monotonic()
            except SlotTaken as problem:
                # A broker that comes back may take up what a client given up asked for after what its successor did, and fence that.
                if stop.is_set() or time.monotonic() - max(renewed_at, self._producer.gave_up_at) > GHOST_S:
                    raise
                log.error("going on with new clients in %g s, after an outage: %s", RETRY_S, problem)
            stop.wait(RETRY_S)

    def _forget(self) -> None:
        """Hold nothing, as at the start."""
        self._policy.reset()
        self._held, self._kept, self._waiting = {}, {}, set()
        self._failed, self._member, self._stale, self._rolled_back = None, False, False, 0
        self.progress = replace(self.progress, partitions=())

    def _work_until(self, stop: threading.Event) -> None:
        # First the producer: it fences a predecessor and ends its transaction before any offset is looked at.
        self._producer.start(INIT_TIMEOUT_S if self._was_up else INIT_PATIENCE_S)
        self._group = Group(self.settings, self._on_assign, self._on_revoke, self._on_lost)
        self._readers = Readers(self.settings)
        self._restorer = Restorer(self.settings, self._group, self._readers)
        # Not the clients that were given up: what is frozen is never freed, and each holds threads.
        gc.collect()
        gc.freeze()
        try:
            self._group.join()
            while not stop.is_set():
                self._step()
            self._guarded(self._commit)
        finally:
            self._close()
            gc.unfreeze()

    def _step(self) -> None:
        wait_s = 0.0 if self._held else self.config.linger_s
        if self._waiting and self._rolled_back > 1:
            wait_s = min(1.0, 0.05 * 2**self._rolled_back)
        self._poll(wait_s)
        if not self._member:
            self._group.check()
        if self._stale and self._member:
            self._renew()
        if self._waiting:
            self._restore()
        if self._held:
            self._guarded(self._work)

    def _poll(self, timeout_s: float = 0.0) -> None:
        self._group.poll(timeout_s)
        self._polled_at = time.monotonic()
        self._raise_failure()

    def _close(self) -> None:
        # What is not committed by now is given up: leaving the group revokes the partitions, and that commits what is dirty.
        self._drop(set(self._held), keep=False)
        self._producer.close()
        # The group before the readers: the callback takes the partitions from them.
        self._group.close()
        self._readers.close()
        self._producer.close()

    def _work(self) -> None:
        gc.disable()
        try:
            self._read()
            worked = sum(self._process(held) for held in list(self._held.values()))
        finally:
            gc.enable()
        if self._policy.due(time.monotonic(), idle=not worked):
            self._commit()

    def _read(self) -> None:
        """Fetch what the merges want; wait only for one topic, and only while that may bring something."""
        wait_s = self.config.linger_s
        limit = self.config.batch_records
        # The topic that is not at its end is what holds the others up.
        order = sorted(DATA_PLANE_INPUTS, key=lambda kind: all(held.merge.logs[kind].at_end for held in self._held.values()))
        order = [kind for kind in order if any(held.merge.wanted(kind) for held in self._held.values())]
        for kind in order:
            got = self._readers.read(kind, limit, wait_s)
            wait_s = 0.0
            for partition, fetched in got.items():
                held = self._held.get(partition)
                if held is not None:
                    held.add(kind, fetched)
                    if len(held.merge.logs[kind]) > HOLD_BATCHES * limit:
                        self._readers.hold(kind, partition, paused=True)

    def _process(self, held: HeldPartition) -> int:
        batch, size_bytes = held.take()
        for kind in DATA_PLANE_INPUTS:
            if len(held.merge.logs[kind]) < self.config.batch_records:
                self._readers.hold(kind, held.partition, paused=False)
        if not held.dirty:
            return 0
        if not len(batch):
            if not self._producer.in_transaction:
                self._producer.begin()
                self._policy.progressed(time.monotonic(), 0, 0, alert=False)
            return 0
        self._producer.begin()
        effects = self._monitored(held, batch)
        alert = self._send(held.partition, effects)
        self._policy.progressed(time.monotonic(), len(batch), size_bytes, alert=alert)
        was = self.progress
        joined = effects.counters.get("joined", 0)
        self.progress = replace(was, records=was.records + len(batch), pairs=was.pairs + joined)
        return len(batch)

    def _monitored(self, held: HeldPartition, batch: Batch) -> Effects:
        try:
            return held.monitor.process(batch)
        except Exception as problem:
            log.exception("monitor of partition %d failed", held.partition)
            raise DriftloopError(
                f"monitor must take any record, got {type(problem).__name__}: {problem} "
                f"(partition {held.partition}, offsets from {held.committed} up to {held.offsets})"
            ) from problem

    def _send(self, partition: int, effects: Effects) -> bool:
        alert = False
        for event in effects.events:
            alert = alert or topic_of(event) == "drift"
            record = outgoing(self.settings, event, partition)
            self._producer.produce(record.topic, partition, record.key, record.value, record.headers)
        for letter in effects.dead_letters:
            headers = tuple(dead_letter_headers(letter))
            self._producer.produce(f"{letter.topic}.dlq", letter.partition, letter.key, letter.value, headers)
        for line in effects.notices:
            log.warning("partition %d: %s", partition, line)
        return alert

    def _commit(self) -> None:
        dirty = [held for held in self._held.values() if held.dirty]
        if not dirty:
            self._policy.reset()
            return
        began_s = time.monotonic()
        self._producer.begin()
        state_bytes = sum(self._send_state(held) for held in dirty)
        offsets = [
            TopicPartition(self.settings.topic(kind), held.partition, offset, metadata=encode_pointer(held.seq + 1))
            for held in dirty
            for kind, offset in held.offsets.items()
        ]
        self._producer.commit(offsets, self._group.metadata())
        self._settle(dirty)
        self._policy.committed(state_bytes, time.monotonic() - began_s)

    def _send_state(self, held: HeldPartition) -> int:
        topic, size_bytes = self.settings.topic("state"), 0
        for name in held.old_parts:
            self._producer.produce(topic, held.partition, part_key(name), None)
        held.old_parts = ()
        for name, data in held.monitor.take_dirty().items():
            held.ledger.note(name, data)
            self._producer.produce(topic, held.partition, part_key(name), data)
            size_bytes += 0 if data is None else len(data)
        manifest = msgspec.json.encode(held.ledger.manifest(held.seq + 1, held.offsets))
        self._producer.produce(topic, held.partition, MANIFEST_KEY, manifest)
        return size_bytes + len(manifest)

    def _settle(self, dirty: list[HeldPartition]) -> None:
        for held in dirty:
            held.seq += 1
            held.committed = dict(held.offsets)
            held.dirty = False
        self._rolled_back = 0
        self.progress = replace(self.progress, commits=self.progress.commits + 1, last_commit_at=time.time())

    def _guarded(self, call: Callable[[], None]) -> None:
        """Run one step under the error table."""
        try:
            call()
        except MustRollBack as problem:
            log.warning("rolling back: %s", problem)
            self._end_transaction()
            self._count_rollback(problem)
            self._roll_back()
        except OutcomeUnknown as problem:
            log.warning("asking the broker what was committed: %s", problem)
            self._stale = True
            self._count_rollback(problem)
            if self._member:
                self._confirm()
            # Without its place in the group the slot may be another's: the producer is made anew once there is an assignment.
            if self._member and self._stale:
                self._producer.start()
                self._stale = False
                self._learn()
            self._roll_back()

    def _end_transaction(self) -> None:
        """Abort with the producer there is; a new one, which aborts too, may fence a living successor and has to wait."""
        try:
            self._producer.abort()
        except OutcomeUnknown:
            self._stale = True

    def _renew(self) -> None:
        self._confirm()
        if self._member:
            self._producer.start()
            self._stale = False

    def _confirm(self) -> None:
        """Raise SlotTaken if the group gave the slot to another process while this one slept; a heartbeat's answer tells."""
        heartbeat_s = heartbeat_interval_s(self.config.session_timeout_s)
        deadline = time.monotonic() + (2 * heartbeat_s if time.monotonic() - self._polled_at > heartbeat_s else 0.0)
        self._poll()
        while self._member and time.monotonic() < deadline:
            self._poll(self.config.linger_s)

    def _count_rollback(self, problem: DriftloopError) -> None:
        self._rolled_back += 1
        if self._rolled_back >= MAX_ROLLBACKS:
            raise Conflict(f"transactions must commit, got {self._rolled_back} rollbacks in a row, the last one: {problem}")

    def _learn(self) -> None:
        """Keep the monitors whose checkpoint was committed after all; with a new producer nothing can be committed late."""
        dirty = [held for held in self._held.values() if held.dirty]
        if not dirty:
            return
        found = self._restorer.pointers([held.partition for held in dirty])
        done = [held for held in dirty if found[held.partition] == (held.seq + 1, held.offsets)]
        if done:
            self._settle(done)

    def _roll_back(self) -> None:
        dirty = [held.partition for held in self._held.values() if held.dirty]
        for partition in dirty:
            self._readers.remove(partition)
            del self._held[partition]
            self._waiting.add(partition)
        self._policy.reset()
        self.progress = replace(self.progress, rollbacks=self.progress.rollbacks + 1, partitions=tuple(sorted(self._held)))

    def _restore(self) -> None:
        began = time.monotonic()
        wanted = set(self._waiting)
        kept = {partition: held for partition, held in self._kept.items() if partition in wanted}
        restored = self._restorer.restore(wanted, kept, lambda: self._still_waits(wanted))
        if restored is None or not wanted <= self._waiting:
            return
        for partition, held in restored.items():
            self._held[partition] = held
            self._readers.add(partition, held.offsets)
        self._waiting -= wanted
        self._kept.clear()
        self._was_up = True
        gc.freeze()
        spent_s = time.monotonic() - began
        log.info("partitions %s restored in %.2f s", sorted(wanted), spent_s)
        was = self.progress
        self.progress = replace(was, partitions=tuple(sorted(self._held)), restored_s=was.restored_s + spent_s)

    def _still_waits(self, wanted: set[int]) -> bool:
        self._poll()
        return wanted <= self._waiting and not self._stale

    def _on_assign(self, partitions: set[int]) -> None:
        log.info("partitions %s assigned", sorted(partitions))
        self._member = True
        self._waiting = partitions - self._held.keys()

    def _on_revoke(self, partitions: set[int]) -> None:
        """Commit while the generation still holds, and keep the monitors: mostly the next assignment gives them back."""
        self._member = False
        if not self._stale:
            self._try(lambda: self._guarded(self._commit))
        self._drop(partitions)

    def _on_lost(self, partitions: set[int]) -> None:
        log.warning("partitions %s were lost", sorted(partitions))
        self._member = False
        if not self._stale:
            self._try(self._end_transaction)
        self._policy.reset()
        self._drop(partitions)

    def _drop(self, partitions: set[int], *, keep: bool = True) -> None:
        for partition in partitions:
            self._readers.remove(partition)
            held = self._held.pop(partition, None)
            if keep and held is not None and not held.dirty:
                held.rewind()
                self._kept[partition] = held
        self._waiting -= partitions
        self.progress = replace(self.progress, partitions=tuple(sorted(self._held)))

    def _try(self, call: Callable[[], None]) -> None:
        # An exception that leaves a rebalance callback would leave the group half revoked.
        try:
            call()
        except DriftloopError as problem:
            self._failed = problem

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed
