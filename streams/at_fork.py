"""What lives through a fork: it comes to rest before one, and starts afresh in the child, where none of its threads is left.

A client that is about to connect must not be copied. While librdkafka looks up an address it holds a lock of the C library (glibc's
`__check_pf`, inside getaddrinfo) that fork() does not put in order: the child finds it locked for ever, and then not this client alone
but nothing in that process can look up an address. Seen in 1 of 400 children forked within 1 ms of the first record.
"""

from __future__ import annotations

import ctypes
import logging
import os
import time
import weakref
from collections.abc import Callable
from typing import Protocol

FORK_WAIT_S = 2.0

log = logging.getLogger("driftloop.client")


class Forked(Protocol):
    """What has to know of a fork."""

    def before_fork(self) -> None:
        """Come to rest: a fork is about to copy this process."""

    def after_fork(self) -> None:
        """Start afresh, in the child."""


class Patience:
    """The time that forks may wait until something is at rest: one limit for all forks of an outage."""

    def __init__(self) -> None:
        self.left_s = FORK_WAIT_S

    def wait(self, rests: Callable[[float], bool]) -> None:
        """Give `rests` what is left of the limit, in seconds; it returns whether there is rest now."""
        started = time.monotonic()
        if rests(self.left_s):
            self.left_s = FORK_WAIT_S
        else:
            self.left_s = max(0.0, self.left_s - (time.monotonic() - started))


# In the order of their making: what is made of others comes after them.
_live: weakref.WeakKeyDictionary[Forked, None] = weakref.WeakKeyDictionary()


def attend(one: Forked) -> None:
    """Tell `one` of each fork while it lives."""
    _live[one] = None


def abandon(*things: object) -> None:
    """Keep things of the parent for ever, in a child: their destructors would wait for threads that only the parent has."""
    for thing in things:
        if thing is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    for one in list(_live):
        _guarded(one.before_fork)


def _after() -> None:
    for one in list(_live):
        _guarded(one.after_fork)


def _guarded(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:  # a fork is the program's own: it goes on
        log.debug("a fork goes on after an error", exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after)
