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
from dataclasses import replace
from typing import Any

from confluent_kafka import Producer, TopicPartition

from ..detectors.monitor import Monitor
from ..schemas.errors import BrokerUnavailable, Conflict, DriftloopError, SlotTaken, TopicMismatch
from ..settings import Settings
from .checkpoint import encode_pointer
from .client_settings import MIB, heartbeat_interval_s, log
from .commit_policy import CommitPolicy
from .held_partition import HeldPartition
from .plane_fetch import HOLD_BATCHES, fetch_wanted, let_go_on
from .plane_inputs import Group, Readers
from .plane_outputs import PlaneOutputs
from .plane_producer import INIT_PATIENCE_S, INIT_TIMEOUT_S, OUTPUTS, MustRollBack, OutcomeUnknown, PlaneProducer, TooLarge
from .plane_restore import Restorer
from .plane_standing import Progress, Standing
from .plane_work import MonitorFault, PlaneWork
from .topic_limits import message_limits

MAX_ROLLBACKS = 8  # in a row
RETRY_S = 1.0
GHOST_S = 60.0
MAX_MISMATCHES = 30  # in a row: a broker that has just started may not know its topics yet
# A merge that waited for one topic lets go of all that was held of the others.
CAREFUL_BATCHES = 4 * HOLD_BATCHES


class DataPlane:
    """The monitor of the partitions that the group gives to this slot.

    `make_producer` builds the transactional client, `monitor` is the machine of each partition.
    """

    def __init__(self, settings: Settings, make_producer: Callable[..., Any] = Producer, monitor: type[Monitor] = Monitor) -> None:
        self.settings = settings
        self.config = settings.data_plane
        self.progress = Progress()
        self._monitor = monitor
        self._producer = PlaneProducer(settings, make_producer)
        self._group: Group
        self._readers: Readers
        self._restorer: Restorer
        self._outputs: PlaneOutputs
        self._partition_work: PlaneWork
        self._policy = CommitPolicy(self.config)
        self._held: dict[int, HeldPartition]
        self._kept: dict[int, HeldPartition]
        self._waiting: set[int]
        self._mine: set[int] = set()  # partitions whose live mark is of this process
        self._suspect: set[int] = set()
        self._standing = Standing()
        self._polled_at = 0.0
        self._was_up = False
        self._forget()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then commit what was begun. Waits out a broker that goes away once it was there.

        Raises SlotTaken where another process has the slot, Conflict where the broker refuses what is written, SnapshotInvalid,
        TopicMismatch, BrokerUnavailable for a broker that never was there.
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
        self._standing = Standing()
        self.progress = replace(self.progress, partitions=())

    def _work_until(self, stop: threading.Event) -> None:
        # First the producer: it fences a predecessor and ends its transaction before any offset is looked at.
        self._producer.start(INIT_TIMEOUT_S if self._was_up else INIT_PATIENCE_S)
        limits_bytes = message_limits(self.settings, OUTPUTS)
        if self._producer.limit_batches(min(limits_bytes.values(), default=MIB)):
            self._producer.start()
        self._outputs = PlaneOutputs(self.settings, limits_bytes)
        self._partition_work = PlaneWork(self.settings, self._producer, self._policy, self._outputs)
        self._group = Group(self.settings, self._on_assign, self._on_revoke, self._on_lost)
        self._readers = Readers(self.settings)
        self._restorer = Restorer(self.settings, self._group, self._readers, self._monitor)
        # Not the clients that were given up: what is frozen is never freed, and each holds threads.
        gc.collect()
        gc.freeze()
        try:
            self._group.join()
            while not stop.is_set():
                self._step()
            self._guarded(self._commit_and_leave)
        finally:
            self._close()
            gc.unfreeze()

    def _step(self) -> None:
        wait_s = 0.0 if self._held else self.config.linger_s
        if self._waiting and self._standing.rolled_back > 1:
            wait_s = min(1.0, 0.05 * 2**self._standing.rolled_back)
        self._poll(wait_s)
        if not self._standing.is_member:
            self._group.check()
        if self._standing.is_stale and self._standing.is_member:
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
        if not all(held.is_marked for held in self._held.values()):
            self._commit()
        gc.disable()
        try:
            fetch_wanted(self._readers, self._held, self.config)
            done = [self._partition_work.process(held) for held in self._held.values()]
        finally:
            gc.enable()
        let_go_on(self._readers, self._held.values(), self.config)
        records, pairs = sum(one.records for one in done), sum(one.pairs for one in done)
        was = self.progress
        self.progress = replace(was, records=was.records + records, pairs=was.pairs + pairs)
        if self._policy.due(time.monotonic(), idle=not any(one.records or one.busy for one in done)):
            self._commit()

    def _commit(self, *, leaving: bool = False) -> None:
        """Commit what is dirty, and the mark of this life where there is none yet; `leaving` takes the marks back."""
        parts = [held for held in self._held.values() if leaving or held.dirty or not held.is_marked]
        if not parts:
            self._policy.reset()
            return
        began_s = time.monotonic()
        self._producer.begin()
        state_bytes = sum(self._partition_work.save(held) for held in parts if held.dirty)
        offsets = []
        for held in parts:
            # What was to be tried and was not is still to be tried.
            pointer = encode_pointer(held.seq + held.dirty, live=not leaving or held.careful > 0)
            for kind, offset in held.offsets.items():
                offsets.append(TopicPartition(self.settings.topic(kind), held.partition, offset, metadata=pointer))
        self._producer.commit(offsets, self._group.metadata())
        self._settle(parts)
        self._policy.committed(state_bytes, time.monotonic() - began_s)

    def _commit_and_leave(self) -> None:
        self._commit(leaving=True)

    def _settle(self, parts: list[HeldPartition]) -> None:
        for held in parts:
            held.seq += held.dirty
            held.committed = dict(held.offsets)
            held.dirty = False
            held.is_marked = True
            for line in held.lines:
                log.info("%s", line)
            held.lines.clear()
        self._standing.rolled_back = 0
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
        except MonitorFault as problem:
            # Told with its trace already.
            self._suspect.add(problem.partition)
            self._end_transaction()
            self._count_rollback(problem)
            self._roll_back()
        except TooLarge as problem:
            log.warning("cutting what is too large: %s", problem)
            if not self._outputs.tighten(problem.topic):
                raise Conflict(str(problem)) from problem
            self._producer.halve_batches()
            self._producer.start()
            self._roll_back()
        except OutcomeUnknown as problem:
            log.warning("asking the broker what was committed: %s", problem)
            self._standing.is_stale = True
            self._count_rollback(problem)
            if self._standing.is_member:
                self._confirm()
            # Without its place in the group the slot may be another's: the producer is made anew once there is an assignment.
            if self._standing.is_member and self._standing.is_stale:
                self._producer.start()
                self._standing.is_stale = False
                self._learn()
            self._roll_back()

    def _end_transaction(self) -> None:
        """Abort with the producer there is; a new one, which aborts too, may fence a living successor and has to wait."""
        try:
            self._producer.abort()
        except OutcomeUnknown:
            self._standing.is_stale = True

    def _renew(self) -> None:
        self._confirm()
        if self._standing.is_member:
            self._producer.start()
            self._standing.is_stale = False

    def _confirm(self) -> None:
        """Raise SlotTaken if the group gave the slot to another process while this one slept; a heartbeat's answer tells."""
        heartbeat_s = heartbeat_interval_s(self.config.session_timeout_s)
        deadline = time.monotonic() + (2 * heartbeat_s if time.monotonic() - self._polled_at > heartbeat_s else 0.0)
        self._poll()
        while self._standing.is_member and time.monotonic() < deadline:
            self._poll(self.config.linger_s)

    def _count_rollback(self, problem: DriftloopError) -> None:
        self._standing.rolled_back += 1
        if self._standing.rolled_back >= MAX_ROLLBACKS:
            raise Conflict(
                f"transactions must commit, got {self._standing.rolled_back} rollbacks in a row, the last one: {problem}"
            )

    def _learn(self) -> None:
        """Keep the monitors whose checkpoint was committed after all; with a new producer nothing can be committed late."""
        dirty = [held for held in self._held.values() if held.dirty]
        if not dirty:
            return
        found = self._restorer.pointers([held.partition for held in dirty])
        done = [held for held in dirty if held.matches_next(found[held.partition])]
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
        # A monitor that was given up goes first: its parts point at each other, and what is frozen is never freed.
        gc.unfreeze()
        gc.collect()
        restored = self._restorer.restore(wanted, kept, lambda: self._still_waits(wanted))
        if restored is None or not wanted <= self._waiting:
            return
        for partition, held in restored.items():
            self._held[partition] = held
            if partition in self._suspect or (held.is_marked and partition not in self._mine):
                held.careful = self.config.commit_records + CAREFUL_BATCHES * self.config.batch_records
                log.warning("partition %d goes on carefully from offsets %s", partition, held.offsets)
            self._readers.add(partition, held.offsets)
        self._mine |= restored.keys()
        self._suspect -= wanted
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
        return wanted <= self._waiting and not self._standing.is_stale

    def _on_assign(self, partitions: set[int]) -> None:
        log.info("partitions %s assigned", sorted(partitions))
        self._standing.is_member = True
        self._waiting = partitions - self._held.keys()

    def _on_revoke(self, partitions: set[int]) -> None:
        """Commit while the generation still holds, and keep the monitors: mostly the next assignment gives them back."""
        self._standing.is_member = False
        if not self._standing.is_stale:
            self._try(lambda: self._guarded(self._commit_and_leave))
        self._drop(partitions)
        self._mine -= partitions

    def _on_lost(self, partitions: set[int]) -> None:
        log.warning("partitions %s were lost", sorted(partitions))
        self._standing.is_member = False
        if not self._standing.is_stale:
            self._try(self._end_transaction)
        self._policy.reset()
        self._drop(partitions)
        self._mine -= partitions

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
            self._standing.failed = problem

    def _raise_failure(self) -> None:
        if self._standing.failed is not None:
            raise self._standing.failed
