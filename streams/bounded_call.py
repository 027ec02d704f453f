"""A bound for calls into librdkafka that may never return.

A transactional call waits for its answer without end, whatever timeout it is given: seen with `send_offsets_to_transaction` of a client
that had lost the cluster (pulse.py), which librdkafka waits for with RD_POLL_INFINITE. The same holds for `assign` in a group that is
closing, and that one waits with the interpreter's lock in hand: no other thread goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException

GRACE_S = 2.0

T = TypeVar("T")


def bounded(call: Callable[[], T], timeout_s: float) -> T:
    """Return what `call` returns or raise what it raises; KafkaException (timed out) where it has done neither in time.

    `timeout_s` is the one that the call itself was given. A call that does not return keeps a thread and its client for ever: the
    caller must throw that client away.
    """
    box: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put((call(), None))
        except BaseException as problem:  # noqa: BLE001 - raised again by the caller
            box.put((None, problem))

    threading.Thread(target=run, name="driftloop-call", daemon=True).start()
    try:
        result, problem = box.get(timeout=timeout_s + GRACE_S)
    except queue.Empty:
        said = f"the client did not return within {timeout_s + GRACE_S:g} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, said)) from None
    if problem is not None:
        raise problem
    return result  # type: ignore[return-value]


def close_member(consumer: Consumer) -> None:
    """Close a member of a group. Its callbacks run before and within.

    An assignment that has come but was not polled for would else be handed to `on_assign` after the group has ended.
    """
    consumer.consume(1, 0)
    consumer.close()
