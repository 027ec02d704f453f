"""Faust's aiokafka transport, made fit to read what transactions wrote: committed records only, and commits that follow.

Faust 0.15.3 reads uncommitted records unless its own `exactly_once` is on, which is unusable; and it notes the gap that a transaction
marker leaves one offset too wide, so that its commits fall behind for ever. Both are mended by overriding internals, which the contract
test names (tests/kafka/test_faust_transport.py): it fails as soon as one of them moves or is mended upstream.
"""

from __future__ import annotations

from typing import Any

from aiokafka.coordinator.assignors.range import RangePartitionAssignor  # type: ignore[import-untyped,unused-ignore]
from faust.transport.drivers import aiokafka as driver

URL_SCHEME = "driftloop"


class CommittedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc,unused-ignore]
    """The thread of consumers that see committed records only and get the same partition numbers of every topic."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        # Faust takes round robin where an app has no tables; a model's drift and job events must meet in one process.
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        return consumer


class CommittedConsumer(driver.Consumer):  # type: ignore[misc,unused-ignore]
    """A consumer that counts a gap up to the record after it, that record left out."""

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        await super()._add_gap(tp, offset_from, offset_to - 1)


class Transport(driver.Transport):  # type: ignore[misc,unused-ignore]
    """The transport of `driftloop://` broker URLs."""

    Consumer = CommittedConsumer
