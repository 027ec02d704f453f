"""ADWIN (Bifet and Gavalda 2007, "Learning from time-changing data with adaptive windowing"): River's, set for block means."""

from __future__ import annotations

from typing import Any, ClassVar

from river.drift import ADWIN

MIN_WINDOW_BLOCKS = 1
GRACE_BLOCKS = 4


class Adwin:
    """The watch of a mean: a window that drops its old part when the two differ at significance `delta`.

    It looks at every block, and at windows of a single one: a block already is a mean of many rows.
    """

    name: ClassVar[str] = "adwin"
    __slots__ = ("_inner", "delta", "update")

    def __init__(self, delta: float) -> None:
        self.delta = delta
        outer: Any = ADWIN
        self._take(outer(delta=delta, clock=1, min_window_length=MIN_WINDOW_BLOCKS, grace_period=GRACE_BLOCKS))

    def _take(self, outer: Any) -> None:
        # River's own `update` throws the window after a change away; the Rust core keeps it, and is a third faster to call.
        self._inner = outer._helper
        self.update = self._inner.update

    def parameters(self) -> dict[str, float]:
        """Return the significance."""
        return {"delta": self.delta}

    def state(self) -> tuple[float, bytes]:
        """Return the significance and the Rust core's own bytes, which are of one version of River."""
        return self.delta, self._inner.__getstate__()

    @classmethod
    def from_state(cls, state: Any) -> Adwin:
        """Return the detector that gave `state`; raises ValueError or TypeError for bytes that are not of this version of River."""
        delta, data = state
        made = cls(delta)
        try:
            made._inner.__setstate__(data)
        except BaseException as problem:
            # A panic in Rust is no Exception.
            if isinstance(problem, KeyboardInterrupt | SystemExit):
                raise
            raise ValueError(f"ADWIN's state must be readable by the installed River, got {problem}") from problem
        return made
