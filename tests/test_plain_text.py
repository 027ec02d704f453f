"""What strangers wrote is shown printable, on one line and cut."""

import pytest

from driftloop.schemas.plain_text import one_line, printable, shown


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[31mred", "\u202eback", "a\x00b", "\ud800"])
def test_nothing_that_forges_a_line_or_colours_a_terminal_passes(text: str) -> None:
    for told in (shown(text), one_line(text), printable(text)):
        assert told.isprintable()
        assert "\n" not in told


def test_names_are_quoted_and_cut() -> None:
    assert shown("fraud") == "'fraud'"
    assert shown("größe") == "'größe'"
    assert shown(7) == "7"
    assert shown("x" * 1_000) == "'" + "x" * 199 + "..."


def test_what_a_library_said_becomes_one_line_and_is_cut() -> None:
    assert one_line("first\n   second\tthird") == "first second third"
    assert one_line(ValueError("no such thing")) == "no such thing"
    assert one_line("x" * 1_000) == "x" * 300 + "..."
    assert one_line("x" * 1_000, 10) == "x" * 10 + "..."
    assert one_line("x" * 300) == "x" * 300


def test_an_escape_says_which_character_it_was() -> None:
    assert printable("a\x1bb") == "a\\x1bb"
    assert printable("plain") == "plain"
