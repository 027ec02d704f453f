"""The seal of a lane: the settings that its state depends on, so that a change of one starts this lane anew and nothing else."""

from __future__ import annotations

from typing import Any

from ..schemas.config import MonitorConfig, Shapes
from .lane_state import lane_state, restore_lane
from .lanes import Lane

ROLES = {"confidence": "output", "error": "error"}
SHAPING = {
    name: kind.lanes for name, field in MonitorConfig.model_fields.items() for kind in field.metadata if isinstance(kind, Shapes)
}
"""The settings that numbers in the state of a lane depend on, each with the lanes; derived from the fields themselves."""


def role_of(lane: Lane) -> str:
    """Return inputs, output or error."""
    return ROLES.get(lane.kind.numbers[0], "inputs")


def sealed(lane: Lane) -> Any:
    """Return the state of a lane with the settings it was made under."""
    role = role_of(lane)
    return {name: getattr(lane.config, name) for name, lanes in SHAPING.items() if role in lanes}, lane_state(lane)


def unseal(lane: Lane, state: Any) -> list[str]:
    """Give a new lane its state and return why it, or detectors of it, begin anew instead; raises ValueError for a foreign one."""
    made_under, rest = state
    now, _ = sealed(lane)
    if made_under != now:
        changed = [name for name in {**now, **made_under} if made_under.get(name) != now.get(name)]
        return [f"{role_of(lane)} lane: {name} was {made_under.get(name)}, is {now.get(name)}" for name in changed]
    restore_lane(lane, rest)
    return [f"{role_of(lane)} detector: {reason}" for reason in _retuned(lane)]


def _retuned(lane: Lane) -> list[str]:
    """Put new detectors, which see the remembered blocks, in place of those made under other settings; return what changed."""
    reasons = []
    for at, held in enumerate(lane.detectors):
        if not held:
            continue
        lane.watch(at)
        alike = {detector.name: detector for detector in held}
        made = lane.detectors[at]
        kept = [alike.get(one.name, one) for one in made]
        kept = [old if old.parameters() == one.parameters() else one for old, one in zip(kept, made, strict=True)]
        fresh = [one for one in kept if one not in held]
        if fresh:
            lane.detectors[at] = fresh
            lane.prime([at], lane.history.count - lane.since[at])
            reasons += [f"{one.name} is {one.parameters()}" for one in fresh]
        lane.detectors[at] = kept
    if reasons:
        lane.rearm()
    return reasons
