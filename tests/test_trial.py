"""Trials: whatever a call does, it does it to a copy of the process, and the reason is told."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from driftloop.streams.trial import fault_of


def test_a_call_that_succeeds_has_no_fault_and_no_effect() -> None:
    seen: list[int] = []
    assert fault_of(lambda: seen.append(1)) is None
    assert seen == []


def bad_bytes() -> None:
    raise ValueError("\ud800")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
        (bad_bytes, "ValueError: ?"),
        (lambda: os._exit(7), "the process ended with code 7"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process ended by signal 9 (SIGKILL)"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "the process ended by signal 11 (SIGSEGV)"),
    ],
    ids=["raise", "text", "exit", "kill", "crash"],
)
def test_a_fault_is_told(call: Callable[[], object], why: str) -> None:
    assert fault_of(call) == why


def test_a_call_without_end_is_ended() -> None:
    assert fault_of(lambda: time.sleep(600), 0.3) == "not done within 0.3 s"
