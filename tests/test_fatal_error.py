"""What a fatal error says is known whichever way it comes out, and the SDK's caller never meets it."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from driftloop.schemas.errors import BrokerUnavailable, DriftloopError
from driftloop.settings import Settings
from driftloop.streams.client_queue import KafkaQueue, Room
from driftloop.streams.fatal_error import FatalError

SAID = "no right to write"
FATAL = KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, SAID, fatal=True))


def at_fault(cause: BaseException | None) -> SystemError:
    problem = SystemError("returned a result with an exception set")
    problem.__cause__ = cause
    return problem


@pytest.mark.parametrize("problem", [FATAL, at_fault(FATAL)])
def test_it_says_what_the_client_said(problem: BaseException) -> None:
    fatal = FatalError()
    fatal.note(problem)
    fatal.note(at_fault(None))
    assert fatal.said == SAID


def test_it_says_what_was_logged_where_the_error_itself_is_lost() -> None:
    fatal = FatalError()
    fatal.log(50, "%s [%s] %s", "FATAL", "driftloop#producer-1", f"[thrd:main]: Fatal error: {SAID}")
    fatal.log(30, "%s [%s] %s", "FAIL", "driftloop#producer-1", "Fatal error: of another day")
    fatal.note(at_fault(None))
    assert fatal.said == SAID


def test_without_an_error_nothing_is_taken() -> None:
    fatal = FatalError()
    fatal.take()
    assert fatal.said is None


class Dead:
    """A producer that met a fatal error: it raises it once, and takes no record."""

    def __init__(self, properties: dict[str, Any], logger: FatalError) -> None:
        self._left = [at_fault(FATAL)]

    def __len__(self) -> int:
        return 0

    def produce(self, *args: Any, **named: Any) -> None:
        if not self._left:
            raise KafkaException(KafkaError(KafkaError._FATAL, "Local: Fatal error"))

    def poll(self, timeout_s: float) -> int:
        if self._left:
            raise self._left.pop()
        return 0

    flush = poll


def test_the_queue_of_the_sdk_refuses_with_the_reason_and_tries_a_new_client_once_in_a_while() -> None:
    made: list[Dead] = []

    def make(*args: Any, **named: Any) -> Producer:
        made.append(Dead(*args, **named))
        return made[-1]  # type: ignore[return-value]

    told: list[DriftloopError] = []
    queue = KafkaQueue(Settings(), Room(10, 1 << 20), told.append, make)
    assert queue.put("t", b"m", b"{}")
    assert queue.flush(0.0) == 0
    with pytest.raises(BrokerUnavailable, match=SAID):
        queue.put("t", b"m", b"{}")
    assert queue.put("t", b"m", b"{}")
    assert len(made) == 2
    assert queue.flush(0.0) == 0
    for _ in range(3):
        with pytest.raises(BrokerUnavailable, match=SAID):
            queue.put("t", b"m", b"{}")
    assert len(made) == 2
    queue.close(0.0)
