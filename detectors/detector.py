"""What every change detector promises; tests/test_detector.py runs one contract over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from .adwin import Adwin
from .page_hinkley import PageHinkley


class Detector(Protocol):
    """The watch of one series of standardised block means."""

    name: ClassVar[str]

    def update(self, value: float) -> bool:
        """Take one finite value; return True where the series changed. A detector goes on after a change without being reset."""

    def parameters(self) -> dict[str, float]:
        """Return what an event says about how the detector was set."""

    def state(self) -> Any:
        """Return everything it remembers, ready for msgpack."""


RESTORERS: dict[str, Callable[[Any], Detector]] = {Adwin.name: Adwin.from_state, PageHinkley.name: PageHinkley.from_state}


def save(detector: Detector) -> tuple[str, Any]:
    """Return the name and state of a detector."""
    return detector.name, detector.state()


def load(saved: tuple[str, Any]) -> Detector:
    """Return the detector of `save`; raises KeyError for a name that is unknown, ValueError or TypeError for a state that is not its."""
    name, state = saved
    return RESTORERS[name](state)
