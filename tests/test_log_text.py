"""A line of the log is one line, whatever its message holds; a traceback follows it."""

import logging
import sys

from driftloop.streams.log_text import OneLine

FORMAT = OneLine("%(levelname)s %(message)s")


def record(message: str, *args: object, error: object = None) -> logging.LogRecord:
    return logging.LogRecord("driftloop", logging.WARNING, "file.py", 1, message, args, error)  # type: ignore[arg-type]


def test_a_message_forges_no_line() -> None:
    assert (
        FORMAT.format(record("job %s failed", "x\nERROR all is lost\x1b[0m")) == "WARNING job x\\nERROR all is lost\\x1b[0m failed"
    )
    assert FORMAT.format(record("plain")) == "WARNING plain"


def test_a_traceback_stays_as_it_is() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        lines = FORMAT.format(record("it\nfailed", error=sys.exc_info())).split("\n")
    assert lines[0] == "WARNING it\\nfailed"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: first", "second"]
