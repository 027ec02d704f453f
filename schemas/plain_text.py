"""Plain text: what strangers wrote, as messages and logs may show it: printable, in one line, cut."""

from __future__ import annotations


def shown(name: object) -> str:
    """Return a name that a stranger chose as messages show it: quoted, in one line, cut."""
    text = ascii(name) if not (isinstance(name, str) and name.isprintable()) else repr(name)
    return text if len(text) <= 200 else f"{text[:200]}..."


def one_line(problem: object, length: int = 300) -> str:
    """Return what a stranger or a library said as one printable line, cut: no newline and no escape code may forge a line of the log."""
    text = " ".join(str(problem).split())
    cut = text if len(text) <= length else f"{text[:length]}..."
    return printable(cut)


def printable(text: str) -> str:
    """Return `text` with every character that is not printable as its escape."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
