"""Text from outside in a log line: no newline and no escape code of a stranger may forge a line or colour a terminal."""

from __future__ import annotations

import logging

SHOWN_CHARACTERS = 300


def shown(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return `text` on one line: what is not printable is escaped, what is long is cut."""
    whole = str(text)
    cut = whole if len(whole) <= limit else whole[:limit] + "..."
    return escaped(cut)


def escaped(text: str) -> str:
    """Return `text` with every character that is not printable as its escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class OneLine(logging.Formatter):
    """The format of a log line whose message stays one line; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line."""
        record.message = escaped(record.message)
        return super().formatMessage(record)
