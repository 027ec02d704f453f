"""Room: how many models, features and classes a partition may hold, and how much of it is taken."""

from __future__ import annotations

from typing import NamedTuple

from ..schemas.config import MonitorConfig
from ..schemas.events import Signature
from .over_limit import OverLimit
from .pending import WIDEST

SHARE_KEPT_FREE = 100


class Size(NamedTuple):
    """What a model takes: itself, its features, and those of its classes of whose scores histograms are kept."""

    models: int = 0
    features: int = 0
    classes: int = 0

    def less(self, other: Size) -> Size:
        """Return what this takes more than another."""
        return Size(*(mine - its for mine, its in zip(self, other, strict=True)))

    def more(self, other: Size) -> Size:
        """Return what both take."""
        return Size(*(mine + its for mine, its in zip(self, other, strict=True)))


NOTHING = Size()
SETTINGS = ("max_models", "max_total_features", "max_total_classes")


def size_of(features: int, classes: int) -> Size:
    """Return what a model of so many features and classes takes."""
    return Size(1, features, min(classes, WIDEST))


def size_of_signature(signature: Signature) -> Size:
    """Return what a registered model takes."""
    return size_of(len(signature.features), len(signature.classes))


class Room:
    """The bounds of a partition, what is taken, and `wanted`: the most that one refused since room was last made would have taken."""

    def __init__(self, config: MonitorConfig) -> None:
        self.limits = Size(config.max_models, config.max_total_features, config.max_total_classes)
        self.taken = NOTHING
        self.wanted = NOTHING

    def take(self, size: Size) -> None:
        """Count what a model takes now, less than nothing where it goes."""
        self.taken = self.taken.more(size)

    def lacks(self, size: Size) -> str | None:
        """Return the setting that leaves no room for `size`, or None."""
        for setting, limit, taken, more in zip(SETTINGS, self.limits, self.taken, size, strict=True):
            if more > 0 and taken + more > limit:
                return setting
        return None

    def refusal(self, model: str, size: Size) -> OverLimit | None:
        """Return why a model does not fit, or None where it does."""
        setting = self.lacks(size)
        return None if setting is None else self.over(setting, model)

    def over(self, setting: str, model: str) -> OverLimit:
        """Return the refusal of a model for which a setting leaves no room."""
        limit = self.limits[SETTINGS.index(setting)]
        what = setting.removeprefix("max_").replace("_", " ")
        return OverLimit(setting, f"{what} of a partition must be at most {limit}, got {model!r} beyond them")

    def want(self, size: Size) -> None:
        """Remember that a model was refused for lack of room."""
        self.wanted = Size(*map(max, self.wanted, size))

    def has_goal(self) -> bool:
        """Return whether there is room for what was wanted, and a share of everything is free."""
        for limit, taken, wanted in zip(self.limits, self.taken, self.wanted, strict=True):
            if limit - taken < min(limit, max(wanted, -(-limit // SHARE_KEPT_FREE))):
                return False
        return True
