"""The pulse of a Kafka client: notice one that lost its cluster for good, so that its owner makes a new one.

A broker that shuts down while no other is up answers a metadata request with topics and no brokers. librdkafka (2.16 here, 2.13 in
confluentinc/librdkafka#5301) then forgets every address it had and never asks again, without an error to anyone. A client that merely
waits for records looks the same; only a question of its own tells the two apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException

QUIET_S = 5.0
ANSWER_S = 1.0
PATIENCE_S = 10.0


class Pulse:
    """The pulse of one client, of any kind, by questions about `topic` (None: all); `clock` gives seconds that never run back."""

    def __init__(self, client: Any, topic: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._topic = topic
        self._clock = clock
        self.beat()

    def beat(self) -> None:
        """Note that something came from the cluster."""
        self._ask_at = self._clock() + QUIET_S
        self._silent_since: float | None = None

    def is_lost(self) -> bool:
        """Return True once the cluster has left questions unanswered for PATIENCE_S; asks only after QUIET_S without a beat."""
        now = self._clock()
        if now < self._ask_at:
            return False
        try:
            self._client.list_topics(self._topic, timeout=ANSWER_S)
        except KafkaException:
            if self._silent_since is None:
                self._silent_since = now
            self._ask_at = now + ANSWER_S
            return now - self._silent_since >= PATIENCE_S
        self.beat()
        return False
