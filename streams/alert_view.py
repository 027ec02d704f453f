"""Alerts as the alerts topic tells them: which fired, what they say now, which ended and by whom."""

from __future__ import annotations

import msgspec

from ..schemas.errors import Conflict, NotFound
from ..schemas.events import AlertEvent, AlertFired, AlertResolved, Severity
from ..settings import Settings
from .outgoing import publish
from .transport import Transport
from .watching import read_events


class AlertView(msgspec.Struct):
    """One alert: `state` is open, degraded (its change has become the new level) or resolved; the newest summary counts."""

    alert_id: str
    model: str
    severity: Severity
    summary: str
    state: str
    episode_id: str | None = None
    degraded_since: float | None = None
    resolved_by: str | None = None


def read_alerts(transport: Transport, settings: Settings) -> dict[str, AlertView]:
    """Return all alerts by id, oldest first within a partition; raises NotFound without the topic."""
    views: dict[str, AlertView] = {}
    for _, event in read_events(transport, [settings.topic("alerts")], AlertEvent):
        if isinstance(event, AlertFired):
            _fired(event, views)
        elif event.alert_id in views and views[event.alert_id].model == event.model:
            view = views[event.alert_id]
            view.state, view.summary, view.resolved_by = "resolved", event.summary, event.resolved_by
    return views


def resolve(transport: Transport, settings: Settings, alert_id: str, summary: str) -> AlertResolved:
    """End an alert on a person's word; raises NotFound for an unknown one, Conflict for one that has ended."""
    view = read_alerts(transport, settings).get(alert_id)
    if view is None:
        raise NotFound(f"alert must be one that fired, got {alert_id!r}; `driftloop alerts ls` lists them")
    if view.state == "resolved":
        raise Conflict(f"alert must be open, it was resolved by {view.resolved_by}: {view.summary} ({alert_id})")
    event = AlertResolved(model=view.model, alert_id=alert_id, summary=summary, resolved_by="user")
    publish(settings, transport, event)
    return event


def _fired(event: AlertFired, views: dict[str, AlertView]) -> None:
    known = views.get(event.alert_id)
    if known is not None and (known.state == "resolved" or known.model != event.model):
        return
    views[event.alert_id] = AlertView(
        alert_id=event.alert_id,
        model=event.model,
        severity=event.severity,
        summary=event.summary,
        state="open" if event.degraded_since is None else "degraded",
        episode_id=event.episode_id,
        degraded_since=event.degraded_since,
    )
