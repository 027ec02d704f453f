"""Challengers: the versions of a model that were proposed, and what became of each; a fold over its events, with no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..schemas.events import ModelEvent, ModelPromoted, ModelProposed, ModelRejected, ModelRolledBack

NOBODY = "a person"


@dataclass(slots=True)
class Challenger:
    """A version that was proposed; `decided` says what became of it, nothing while it waits."""

    event: ModelProposed
    decided: str = ""
    rejected: bool = False

    def fate(self, now_s: float) -> str:
        """Return what became of it, nothing while it waits for a person's word."""
        if not self.decided and now_s >= self.event.expires_at:
            return "it expired, nobody decided"
        return self.decided


@dataclass(slots=True)
class Challengers:
    """The proposals of one model, oldest first; of those that are not decided the newest alone waits."""

    all: list[Challenger] = field(default_factory=list)

    def waiting(self, now_s: float) -> Challenger | None:
        """Return the one that waits for a person's word."""
        return next((one for one in self.all if not one.fate(now_s)), None)

    def newest(self, version: int | None = None) -> Challenger | None:
        """Return the newest proposal of a version, or of any."""
        return next((one for one in reversed(self.all) if version in (None, one.event.version)), None)

    @property
    def rejected(self) -> set[int]:
        """Return the versions that a person rejected when they were proposed last."""
        return {version for version, is_rejected in {one.event.version: one.rejected for one in self.all}.items() if is_rejected}

    def fold(self, event: ModelEvent) -> bool:
        """Take in an event that counts; return False where it decides of a version that does not wait."""
        if isinstance(event, ModelProposed):
            self._decide(f"version {event.version} was proposed after it")
            self.all.append(Challenger(event))
        elif isinstance(event, ModelPromoted):
            self._decide(f"it was approved by {event.by or NOBODY}", event.version)
            self._decide(f"version {event.version} serves now")
        elif isinstance(event, ModelRolledBack):
            self._decide(f"version {event.version} serves again")
        elif isinstance(event, ModelRejected) and event.version is not None:
            waited = self._decide(f"it was rejected by {event.by or NOBODY}: {'; '.join(event.reasons)}", event.version)
            for one in waited:
                one.rejected = True
            return bool(waited)
        return True

    def _decide(self, what: str, version: int | None = None) -> list[Challenger]:
        """Say what became of those that wait, of one version or of any, and return them."""
        waited = [one for one in self.all if not one.decided and version in (None, one.event.version)]
        for one in waited:
            one.decided = what
        return waited
