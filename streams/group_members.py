"""How many processes a consumer group has: nobody serves where it has none."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from ..settings import Settings
from .topics import unavailable

SETTLING = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
PAUSE_S = 0.1


def group_members(settings: Settings, admin: Any, group: str, timeout_s: float) -> int:
    """Return the number of a group's members; raises BrokerUnavailable."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return len(admin.describe_consumer_groups([group])[group].result(timeout_s).members)
        except (KafkaException, TimeoutError) as problem:
            # A broker that has just started, or has no offsets topic yet, makes its coordinators only when asked for one.
            if time.monotonic() > deadline or not _is_settling(problem):
                raise unavailable(settings, timeout_s, problem) from None
        time.sleep(PAUSE_S)


def _is_settling(problem: Exception) -> bool:
    return isinstance(problem, KafkaException) and problem.args[0].code() in SETTLING
