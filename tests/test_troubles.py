"""A trouble is one line of the log and one alert when it begins, and again when it is over, whoever tells of it."""

import logging

import pytest

from driftloop.schemas.codecs import decode
from driftloop.schemas.errors import BrokerUnavailable
from driftloop.schemas.events import AlertEvent, AlertFired, AlertResolved
from driftloop.settings import Settings
from driftloop.streams.memory import MemorySender, MemoryTransport
from driftloop.streams.transport import Outgoing
from driftloop.streams.troubles import SERVICE, Trouble, TroubleBoard, announce, settle

SETTINGS = Settings()
TROUBLE = Trouble("store-away", "the store is away")


def told(transport: MemoryTransport) -> list[tuple[str, str, str]]:
    records = transport.reader([SETTINGS.topic("alerts")]).poll(100, 0.0)
    events = [decode(record.value, AlertEvent, "alerts") for record in records if record.value != b"{"]
    return [(type(event).__name__, event.model, event.summary) for event in events if isinstance(event, AlertFired | AlertResolved)]


def test_it_begins_once_and_ends_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="driftloop.service")
    transport = MemoryTransport()
    for _ in range(3):
        announce(SETTINGS, transport, [TROUBLE])
    for _ in range(2):
        settle(SETTINGS, transport, {TROUBLE.alert_id: "the store is back"})
    assert told(transport) == [("AlertFired", SERVICE, "the store is away"), ("AlertResolved", SERVICE, "the store is back")]
    assert caplog.messages == ["trouble: the store is away", "trouble is over: the store is back"]
    announce(SETTINGS, transport, [TROUBLE])
    assert len(told(transport)) == 3, "it may come again"


def test_what_never_began_does_not_end_and_garbage_is_passed_over() -> None:
    transport = MemoryTransport()
    transport.append([Outgoing(SETTINGS.topic("alerts"), b"k", b"{")])
    settle(SETTINGS, transport, {"service-other": "over"})
    assert told(transport) == []


def test_alerts_of_drift_are_no_troubles() -> None:
    transport = MemoryTransport()
    announce(SETTINGS, transport, [TROUBLE, Trouble("late-j1", "it waits", "high", "fraud")])
    board = TroubleBoard(SETTINGS, transport)
    board.refresh()
    assert {alert_id: fired.model for alert_id, fired in board.open.items()} == {
        "service-store-away": SERVICE,
        "service-late-j1": "fraud",
    }
    board.close()


def test_a_broker_that_does_not_answer_is_logged_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def away(*_: object) -> int:
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(MemorySender, "flush", away)
    announce(SETTINGS, MemoryTransport(), [TROUBLE])
    assert "troubles could not be published: no answer" in caplog.text
