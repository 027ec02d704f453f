"""A whole incident over the memory transport: drift, a level that stays, the second repair, recovery; and a request by hand meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import encode_json
from driftloop.schemas.config import MonitorConfig, PolicyConfig
from driftloop.schemas.errors import Conflict, NotFound
from driftloop.schemas.events import (
    AlertEvent,
    DriftClosed,
    DriftEvent,
    Event,
    JobCommand,
    JobFinished,
    JobRequested,
    LabelArrived,
    PredictionMade,
    Signature,
)
from driftloop.settings import Settings
from driftloop.streams.alert_view import read_alerts, resolve
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.job_rows import read_rows
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.memory_plane import MemoryPlane
from driftloop.streams.transport import Outgoing
from driftloop.streams.watching import read_events

SETTINGS = Settings(monitor=MonitorConfig(settle_rows=800))
START_MS = 1_700_000_000_000
SIGNATURE = Signature(task="classification", features=("x",), classes=(0, 1))


class World:
    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.transport = MemoryTransport(settings.topics.partitions)
        self.plane = MemoryPlane(settings, self.transport)
        self.control = ControlLoop(settings, self.transport)
        self.sender = self.transport.sender()
        self.rows = 0
        self.rng = np.random.default_rng(4)

    def serve(self, rows: int, error: float) -> None:
        """Answer so many rows, of which this share is wrong; features say which stretch they are of."""
        for _ in range(rows):
            wrong, self.rows, ident = self.rng.random() < error, self.rows + 1, f"p{self.rows}"
            made = PredictionMade(model="m", version=1, prediction_id=ident, output=0, features={"x": error})
            arrived = LabelArrived(model="m", prediction_id=ident, label=int(wrong))
            for kind, event in (("predictions", made), ("labels", arrived)):
                self.sender.send(Outgoing(SETTINGS.topic(kind), b"m", encode_json(event), timestamp_ms=START_MS + self.rows))
        self.plane.step()
        while self.control.step():
            pass

    def finish(self, job_id: str) -> None:
        """Let a job end without a better model."""
        event = JobFinished(model="m", job_id=job_id, recipe="repair", outcome="rejected", reasons=("no better",), duration_s=1.0)
        self.sender.send(Outgoing(SETTINGS.topic("job-events"), *encode_event(event, 0.0)))
        while self.control.step():
            pass

    def told(self, kind: str, carries: object) -> list[Event]:
        return [event for _, event in read_events(self.transport, [SETTINGS.topic(kind)], carries)]

    @property
    def jobs(self) -> list[str]:
        return [event.job_id.rpartition("-")[2] for event in self.told("jobs", JobCommand) if isinstance(event, JobRequested)]

    @property
    def alert(self) -> str:
        (view,) = read_alerts(self.transport, SETTINGS).values()
        return view.state

    def restart(self) -> None:
        """Lose the control plane's memory."""
        self.control.close()
        self.control = ControlLoop(SETTINGS, self.transport)
        while self.control.step():
            pass


def degraded() -> World:
    """Return a world whose error rose and stayed until the episode settled, the first repair still at work."""
    world = World()
    world.serve(1_500, 0.05)
    assert world.told("alerts", AlertEvent) == []
    world.serve(500, 0.5)
    assert (world.alert, world.jobs) == ("open", ["300"])
    world.serve(700, 0.5)
    return world


def test_the_alert_stays_until_the_model_recovers_and_the_second_repair_is_asked_for() -> None:
    world = degraded()
    closed = [
        event.reason for event in world.told("drift", DriftEvent) if isinstance(event, DriftClosed) and event.signal == "error"
    ]
    assert closed == ["settled"]
    assert world.alert == "degraded"
    (view,) = read_alerts(world.transport, SETTINGS).values()
    assert "degraded since" in view.summary
    world.finish(f"{view.episode_id}-300")
    assert world.jobs == ["300"], "2,000 rows are not there yet"
    world.restart()
    world.serve(1_000, 0.5)
    assert world.jobs == ["300", "2000"]
    assert world.alert == "degraded"
    world.restart()
    assert world.jobs == ["300", "2000"]
    world.finish(f"{view.episode_id}-2000")
    world.serve(1_500, 0.05)
    assert world.alert == "resolved"
    (view,) = read_alerts(world.transport, SETTINGS).values()
    assert (view.resolved_by, "recovered" in view.summary) == ("policy", True)
    world.restart()
    assert [type(event).__name__ for event in world.told("alerts", AlertEvent)] == ["AlertFired", "AlertFired", "AlertResolved"]


def test_a_person_resolves_an_alert_once() -> None:
    world = degraded()
    (alert_id,) = read_alerts(world.transport, SETTINGS)
    resolve(world.transport, SETTINGS, alert_id, "known: new price list")
    while world.control.step():
        pass
    (view,) = read_alerts(world.transport, SETTINGS).values()
    assert (view.state, view.resolved_by, view.summary) == ("resolved", "user", "known: new price list")
    with pytest.raises(Conflict, match="resolved by user"):
        resolve(world.transport, SETTINGS, alert_id, "again")
    with pytest.raises(NotFound, match="alerts ls"):
        resolve(world.transport, SETTINGS, "drift-0", "none")
    world.finish(f"{view.episode_id}-300")
    world.serve(1_500, 0.5)
    assert world.jobs == ["300"], "whoever resolves an alert needs no further repair"
    assert world.alert == "resolved"


def test_a_request_without_rows_takes_those_after_the_newest_change() -> None:
    world = degraded()
    request = JobRequested(model="m", job_id="by-hand", recipe="repair", requested_by="user")
    found = read_rows(world.transport, SETTINGS, request, SIGNATURE)
    assert set(np.unique(found.rows.features)) == {np.float32(0.5)}, "rows from before the change are not mixed in"
    assert len(found.rows) >= 1_150
    world.serve(1_500, 0.05)
    found = read_rows(world.transport, SETTINGS, request, SIGNATURE)
    assert set(np.unique(found.rows.features)) == {np.float32(0.05)}
    assert 1_400 <= len(found.rows) <= 1_500


def test_a_model_without_a_change_takes_the_newest_rows() -> None:
    world = World()
    world.serve(200, 0.05)
    request = JobRequested(model="m", job_id="by-hand", recipe="repair", requested_by="user")
    world.sender.send(Outgoing(SETTINGS.topic("drift"), b"m", b"{"))
    assert len(read_rows(world.transport, SETTINGS, request, SIGNATURE).rows) == 200


def test_repairs_are_asked_for_at_the_rows_of_the_settings_whatever_the_monitor_reports_by_itself() -> None:
    settings = Settings(
        monitor=MonitorConfig(settle_rows=400, milestones=()),
        policy=PolicyConfig(first_rows=150, second_rows=900, cool_down_rows=0),
    )
    assert settings.monitor.milestones == (150, 900)
    assert Settings(policy=PolicyConfig(enabled=False)).monitor.milestones == MonitorConfig().milestones
    world = World(settings)
    world.serve(1_500, 0.05)
    world.serve(500, 0.5)
    assert (world.alert, world.jobs) == ("degraded", ["150"])
    (view,) = read_alerts(world.transport, settings).values()
    world.finish(f"{view.episode_id}-150")
    world.serve(800, 0.5)
    assert world.jobs == ["150", "900"]
