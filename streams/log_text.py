"""The format of the log: a message stays one line, whatever text from outside is in it."""

from __future__ import annotations

import logging

from ..schemas.plain_text import printable


class OneLine(logging.Formatter):
    """The format of a log line whose message stays one line; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line."""
        record.message = printable(record.message)
        return super().formatMessage(record)
