"""Fatal errors of a producer, such as a user who may write nothing at all: how they come out of poll and flush, and what they say.

confluent-kafka raises a fatal error inside poll and flush, whatever callbacks there are, and calls the others that are due with that
exception set: sooner or later a call that went well looks at fault (SystemError), and what the error said is lost.
"""

from __future__ import annotations

import ctypes
from typing import Any

from confluent_kafka import KafkaException

from .client_settings import log

# Looked up beforehand: a look-up that fails on its way would put its own error in the place of the one that is set.
_OCCURRED = ctypes.pythonapi.PyErr_Occurred
FATAL = "Fatal error: "  # as librdkafka logs it
RAISED = (KafkaException, SystemError)  # what a fatal error comes out of poll and flush as


class FatalError:
    """What the fatal error of one client says, once there is one; it is the client's logger too, since logs are told in callbacks."""

    def __init__(self) -> None:
        self.said: str | None = None
        self._logged = ""

    def log(self, level: int, message: str, *args: Any) -> None:
        """Hand on what the client logs."""
        self.take()
        log.log(level, message, *args)
        # Told before the error itself is: what is left where that one is lost.
        self._logged = self._logged or (message % args if args else message).partition(FATAL)[2]

    def take(self) -> None:
        """Take the error that is set while a callback runs, so that the callback can do its work."""
        try:
            # Does nothing itself: what is called through pythonapi raises the exception that is set.
            _OCCURRED()
        except RAISED as problem:
            self.note(problem)

    def note(self, problem: BaseException) -> None:
        """Remember what an error that came out of poll or flush says, unless that is known."""
        if self.said is None:
            behind = problem if isinstance(problem, KafkaException) else problem.__cause__
            self.said = str(behind.args[0].str()) if isinstance(behind, KafkaException) else self._logged or str(problem)
