"""The void transaction: one more over every partition that a transactional id may have written to, aborted, right after it was taken over.

Kafka that starts after an outage longer than a transaction's timeout ends that transaction before it knows the leaders of its partitions
(seen with 4.3.1): it is told as aborted, and no partition gets the marker. Its records stay open there, and the next commit of the same
producer id makes them readable as well: outputs come twice. Markers go by producer id, so those of a later abort close them. The
group's offsets are among the partitions: pending ones would be waited for for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ..settings import Settings
from .client_settings import base_properties, log

# A broker that has just started may not know its topics yet.
KNOWN_S = 5.0
KEY = b"void"

Repeat = Callable[[Callable[[], Any]], Any]
"""Makes a transactional call under the error table of the producer's owner."""


class Scope(NamedTuple):
    """What one transactional id may have written to: topics, and the offsets of a group, of which `read` is one topic."""

    topics: tuple[str, ...]
    group: str
    read: str


def abort_leftovers(settings: Settings, client: Any, scope: Scope, repeat: Repeat, wait_s: float) -> None:
    """Abort one transaction over all partitions of the scope; raises KafkaException, and what `repeat` makes of it."""
    parts = _partitions(client, scope.topics, wait_s)
    repeat(client.begin_transaction)
    for part in parts:
        _produce(client, part)
    if _flush(client, wait_s):
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records of the void transaction were not acknowledged"))
    # No member of the group: what it says is aborted.
    member = Consumer({**base_properties(settings), "group.id": scope.group}, logger=log)
    try:
        offsets = [TopicPartition(scope.read, 0, 0)]
        repeat(partial(client.send_offsets_to_transaction, offsets, member.consumer_group_metadata(), wait_s))
    except KafkaException as problem:
        # An abort is what follows in any case.
        if not problem.args[0].txn_requires_abort():
            raise
    finally:
        member.close()
    repeat(partial(client.abort_transaction, wait_s))


def _flush(client: Any, wait_s: float) -> int:
    try:
        return int(client.flush(wait_s))
    except SystemError as fault:
        # A fatal error is raised before the callback of a record that failed with it has run, which then seems to be at fault.
        raise (fault.__cause__ if isinstance(fault.__cause__, KafkaException) else fault) from None


def _partitions(client: Any, topics: Sequence[str], wait_s: float) -> list[TopicPartition]:
    deadline = time.monotonic() + min(KNOWN_S, wait_s)
    while True:
        known = client.list_topics(timeout=wait_s).topics
        found = {name: known[name].partitions for name in topics if name in known and known[name].error is None}
        if len(found) == len(topics) or time.monotonic() > deadline:
            return [TopicPartition(name, number) for name, partitions in found.items() for number in partitions]
        time.sleep(0.1)


def _produce(client: Any, part: TopicPartition) -> None:
    while True:
        try:
            # The state topic is compacted and takes no record without a key.
            client.produce(part.topic, key=KEY, value=b"", partition=part.partition)
            return
        except BufferError:
            client.poll(0.01)
