"""Late jobs: a repair waits for the store for as long as it takes, tells so, and is done once there is room."""

import errno
from pathlib import Path

import pytest

from driftloop.compression import store
from driftloop.schemas.codecs import decode
from driftloop.schemas.config import StoreConfig, WorkerConfig
from driftloop.schemas.events import AlertEvent, AlertFired, AlertResolved, JobFailed, JobFinished
from driftloop.settings import Settings
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.worker import Worker
from driftloop.tests.made_drift import drift_opened
from driftloop.tests.worker_world import quick_repair, read, request, send, serve_a_champion, turn_the_concept


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        store=StoreConfig(url=str(tmp_path / "store")),
        recipes=quick_repair("scratch"),
        worker=WorkerConfig(heartbeat_s=0.1, put_off_s=0.01, max_put_off=2),
    )


def ended(settings: Settings, transport: MemoryTransport) -> list[tuple[str, str]]:
    events = read(settings, transport, "job-events")
    return [
        (event.job_id, event.outcome if isinstance(event, JobFinished) else event.cause)
        for event in events
        if isinstance(event, JobFinished | JobFailed)
    ]


def alerts_of(settings: Settings, transport: MemoryTransport) -> list[tuple[str, str]]:
    records = transport.reader([settings.topic("alerts")]).poll(100, 0.0)
    events = [decode(record.value, AlertEvent, record.topic) for record in records]
    return [(type(event).__name__, event.alert_id) for event in events if isinstance(event, AlertFired | AlertResolved)]


@pytest.mark.slow
def test_a_repair_waits_for_the_store_however_long_and_is_an_alert_meanwhile(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its milestone is asked for once: were the job to fail, nothing would be repaired once the store is back."""
    transport = MemoryTransport()
    serve_a_champion(settings, transport)
    turn_the_concept(settings, transport)
    monkeypatch.setattr("driftloop.streams.worker.LATE_PUT_OFF_S", 0.01)
    refusals = [OSError(errno.EIO, "Input/output error")] * 5
    read_bounded = store.read_bounded

    def away(path: Path, limit_bytes: int) -> bytes:
        if refusals:
            raise refusals.pop()
        return read_bounded(path, limit_bytes)

    monkeypatch.setattr(store, "read_bounded", away)
    send(settings, transport, "drift", drift_opened(rows=400, episode_id="e1", span=request(settings).rows))
    control = ControlLoop(settings, transport)
    worker = Worker(settings, transport)
    while not ended(settings, transport):
        control.step()
        worker.step(0.01)
        if len(refusals) == 1 and worker._late._told:
            # Another worker takes over: it knows from the record that the job was late.
            worker.close()
            worker = Worker(settings, transport)
    worker.close()
    control.close()
    assert ended(settings, transport) == [("e1-300", "promoted")]
    assert not refusals
    late = [one for one in alerts_of(settings, transport) if one[1].startswith("service-")]
    assert late == [("AlertFired", "service-late-e1-300"), ("AlertResolved", "service-late-e1-300")]
