"""The gate before the monitor: where the settings name public keys, model events that none of them signed go no further.

It looks at one record at a time, so that a data plane that starts again needs no history: a repeated event of the past passes here,
and not in the registry.
"""

from __future__ import annotations

import logging

from ..schemas.errors import EventInvalid
from ..schemas.records import Headers
from ..settings import Settings
from .fold_guard import FoldGuard
from .signing import verifier_of

log = logging.getLogger("driftloop.models")


class SignedGate:
    """The gate of one data plane; `guard.skipped` counts what it kept out."""

    def __init__(self, settings: Settings) -> None:
        self.guard = FoldGuard(log)
        self._verifier = verifier_of(settings.signing)

    @property
    def is_open(self) -> bool:
        """Return whether everything may pass."""
        return self._verifier is None

    def passes(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> bool:
        """Return whether the monitor may believe a model event."""
        if self._verifier is None:
            return True
        try:
            self._verifier.check(topic, key, value, () if headers is None else tuple(headers))
        except EventInvalid as problem:
            self.guard.refuse(problem)
            return False
        return True
