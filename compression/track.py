"""The track of a job: how far it is and what is measured on the way, from the innermost loop out to whoever follows the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of news: the step, the done share of the whole job, and the step's scalars at its iteration `at`."""

    step: str
    fraction: float
    message: str = ""
    scalars: dict[str, float] = msgspec.field(default_factory=dict)
    at: int | None = None


Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Track:
    """What a part of a job tells through: its name, and its span of the whole."""

    tell: Tell
    step: str = "start"
    start: float = 0.0
    end: float = 1.0
    has_scalars: bool = True

    def part(self, step: str, start: float, end: float) -> Track:
        """Return the track of a part that spans `start` to `end` of this one."""
        width = self.end - self.start
        return Track(self.tell, step, self.start + start * width, self.start + end * width, self.has_scalars)

    def without_scalars(self) -> Track:
        """Return the track of a part that is done several times over: how far it is counts, not each of its curves."""
        return replace(self, has_scalars=False)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far this part is, in [0, 1]."""
        self.tell(Progress(step=self.step, fraction=self._whole(fraction), message=message))

    def scalars(self, fraction: float, at: int, values: dict[str, float]) -> None:
        """Tell what was measured at iteration `at` of this part."""
        if self.has_scalars:
            self.tell(Progress(step=self.step, fraction=self._whole(fraction), scalars=values, at=at))
        else:
            self.progress(fraction)

    def _whole(self, fraction: float) -> float:
        return round(self.start + fraction * (self.end - self.start), 4)
