"""A person's word on the version that is proposed: it is approved and serves, or it is rejected and is not offered again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..schemas.errors import Conflict
from ..schemas.events import ModelPromoted, ModelProposed, ModelRejected
from ..settings import Settings
from .outgoing import publish
from .publishing import known_model
from .registry import read_registry
from .transport import Transport


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides, why, and of which version of a model; None means the one that is proposed."""

    model: str
    by: str
    reason: str
    version: int | None = None


def approve(settings: Settings, transport: Transport, decision: Decision) -> ModelPromoted:
    """Make the proposed version the champion; raises NotFound without the model, Conflict where none waits, or another one does."""
    proposed = _waiting(settings, transport, decision)
    event = ModelPromoted(
        model=decision.model,
        version=proposed.version,
        digest=proposed.digest,
        reason=f"{decision.reason} ({proposed.reason})" if decision.reason else proposed.reason,
        previous_version=proposed.previous_version,
        metric=proposed.metric,
        by=decision.by,
    )
    publish(settings, transport, event)
    return event


def reject(settings: Settings, transport: Transport, decision: Decision) -> ModelRejected:
    """Say that the proposed version is not to serve; raises as `approve`."""
    proposed = _waiting(settings, transport, decision)
    reason = decision.reason if decision.reason else "rejected by hand"
    event = ModelRejected(model=decision.model, reasons=(reason,), version=proposed.version, by=decision.by)
    publish(settings, transport, event)
    return event


def _waiting(settings: Settings, transport: Transport, decision: Decision) -> ModelProposed:
    registry, now_s = read_registry(transport, settings), time.time()
    known_model(registry, decision.model)
    challengers = registry.challengers(decision.model)
    waiting = challengers.waiting(now_s)
    if waiting is not None and decision.version in (None, waiting.event.version):
        return waiting.event
    last = challengers.newest(decision.version)
    fate = "" if last is None or waiting is not None else f", version {last.event.version} waits no more: {last.fate(now_s)}"
    there = "none" if waiting is None else f"version {waiting.event.version}"
    wanted = "a proposed version" if decision.version is None else f"version {decision.version} proposed"
    raise Conflict(f"model must have {wanted}, got {there}{fate} ({decision.model}; driftloop model promote needs no proposal)")
