"""Faults: what failed in the watch of one model, contained there so that the other models go on."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure in the watch of `model` that did not end it; `part` is the lane, episode or sum that begins anew or was passed over."""

    model: str
    part: str
    message: str


class LaneBroken(Exception):
    """The mark of a lane that failed where it could not say so: it begins anew at its next full block."""


def contained(problem: BaseException) -> str:
    """Return what failed; raises what must not be contained again. A panic in Rust is no Exception."""
    if isinstance(problem, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise problem
    text = str(problem) if isinstance(problem, LaneBroken) else f"{type(problem).__name__}: {problem}"
    return text[:MAX_MESSAGE_CHARACTERS]
