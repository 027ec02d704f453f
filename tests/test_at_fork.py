"""What lives through a fork is told before it and in the child, and none of it can hinder the fork."""

import gc
import os
import time
import weakref

import pytest

from driftloop.streams import at_fork
from driftloop.streams.at_fork import FORK_WAIT_S, Patience

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Witness:
    """What notes each fork, and may fail at it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.before, self.after, self.fault = 0, 0, fault

    def before_fork(self) -> None:
        self.before += 1
        if self.fault is not None:
            raise self.fault

    def after_fork(self) -> None:
        self.after += 1


def seen_in_child(*witnesses: Witness) -> list[int]:
    child = os.fork()
    if child == 0:
        os._exit(sum(10 * one.before + one.after for one in witnesses))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *(one.after for one in witnesses)]


def test_it_is_told_before_a_fork_and_in_the_child_alone() -> None:
    witness = Witness()
    at_fork.attend(witness)
    assert seen_in_child(witness) == [11, 0]


def test_what_fails_hinders_neither_the_fork_nor_the_others() -> None:
    failing, witness = Witness(ValueError("on purpose")), Witness()
    at_fork.attend(failing)
    at_fork.attend(witness)
    assert seen_in_child(failing, witness) == [22, 0, 0]


def test_what_is_gone_is_told_nothing() -> None:
    witness = Witness()
    at_fork.attend(witness)
    gone = weakref.ref(witness)
    del witness
    gc.collect()
    assert gone() is None


def test_what_is_abandoned_is_never_destroyed() -> None:
    witness = Witness()
    at_fork.abandon(witness, None)
    kept = weakref.ref(witness)
    del witness
    gc.collect()
    assert kept() is not None


def test_an_outage_makes_forks_wait_once() -> None:
    patience, given_s = Patience(), []

    def never(timeout_s: float) -> bool:
        given_s.append(timeout_s)
        time.sleep(min(timeout_s, 0.01))
        return False

    patience.left_s = 0.01
    for _ in range(3):
        patience.wait(never)
    assert given_s[0] == 0.01
    assert given_s[1:] == [0.0, 0.0]
    patience.wait(lambda timeout_s: timeout_s == 0.0)
    assert patience.left_s == FORK_WAIT_S


def test_what_was_made_first_is_told_first() -> None:
    told: list[int] = []

    class Numbered(Witness):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def before_fork(self) -> None:
            told.append(self.number)

    kept = [Numbered(number) for number in range(20)]
    for one in kept:
        at_fork.attend(one)
    seen_in_child()
    assert told == list(range(20))
