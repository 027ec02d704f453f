"""The watchdog over the memory transport: each trouble one alert, over once it is seen to be, and told by one process alone."""

import pytest

from driftloop.schemas import codecs
from driftloop.schemas.config import ServiceConfig, TopicsConfig
from driftloop.schemas.dead_letters import DeadLetter, dead_letter_headers
from driftloop.schemas.events import AlertFired, AlertResolved
from driftloop.schemas.topics import KINDS
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.transport import Outgoing
from driftloop.streams.watchdog import Watchdog

SETTINGS = Settings(topics=TopicsConfig(prefix="t.", partitions=2), service=ServiceConfig(stall_s=60, dead_letters_a_minute=10))
GROUP = SETTINGS.monitor_group
SILENT = ServiceConfig(silent_s=100, silent_factor=3, stall_s=1e9)


def alerts(transport: MemoryTransport) -> list[tuple[str, str]]:
    reader, found = transport.reader(["t.alerts"]), []
    while records := reader.poll(100, 0.0):
        for record in records:
            event = codecs.decode(record.value, KINDS["alerts"].carries, "t.alerts")
            assert isinstance(event, AlertFired | AlertResolved)
            found.append((type(event).__name__, event.alert_id))
    return found


def test_a_partition_that_stands_still_is_one_alert_and_over_when_it_moves() -> None:
    transport = MemoryTransport(2, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS, transport)
    transport.append([Outgoing("t.labels", b"k", b"1", partition=1)] * 5, {(GROUP, "t.labels", 1): 2})
    for now_s in (0.0, 30.0, 60.0, 90.0):
        dog.look(now_s)
    assert alerts(transport) == [("AlertFired", "service-stall-t.labels-1")]
    again = Watchdog(SETTINGS, transport)
    for now_s in (100.0, 101.0, 161.0):
        again.look(now_s)
    assert len(alerts(transport)) == 1, "what is open is neither told again nor over because a watchdog is new"
    transport.append([], {(GROUP, "t.labels", 1): 5})
    again.look(170.0)
    dog.look(171.0)
    assert alerts(transport)[1:] == [("AlertResolved", "service-stall-t.labels-1")]


def test_a_rising_disposition_is_one_alert() -> None:
    transport = MemoryTransport(2, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS, transport)
    dog.look(0.0)
    letter = DeadLetter(
        topic="t.labels",
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=b"k",
        value=b"x",
        headers=(),
        disposition="invalid",
        message="m",
    )
    transport.append([Outgoing("t.labels.dlq", b"k", b"x", tuple(dead_letter_headers(letter)))] * 20)
    for now_s in (1.0, 2.0, 61.0):
        dog.look(now_s)
    assert alerts(transport) == [("AlertFired", "service-dead-letters-t.labels.dlq-invalid")]
    dog.look(122.0)
    dog.look(183.0)
    assert alerts(transport)[1:] == [("AlertResolved", "service-dead-letters-t.labels.dlq-invalid")]


def test_a_model_without_labels_that_falls_silent_is_one_alert_until_it_is_heard_again() -> None:
    transport = MemoryTransport(2, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS.model_copy(update={"service": SILENT}), transport)
    dog.look(0.0)

    def hear(now_s: float, *models: bytes) -> None:
        transport.append([Outgoing("t.predictions", model, b"{") for model in models])
        dog.look(now_s)

    for at in range(1, 8):
        hear(at * 10.0, b"quiet", b"loud")
    for at in range(8, 17):
        hear(at * 10.0, b"loud")
    assert alerts(transport) == []
    hear(171.0, b"loud")
    hear(180.0, b"loud")
    assert alerts(transport) == [("AlertFired", "service-silent-quiet")]
    hear(190.0, b"loud", b"quiet")
    assert alerts(transport)[1:] == [("AlertResolved", "service-silent-quiet")]


def test_a_model_is_not_silent_because_the_watchdog_could_not_read_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftloop.streams.watchdog.HEARD_RECORDS", 5)
    transport = MemoryTransport(1, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS.model_copy(update={"service": SILENT}), transport)
    for at in range(8):
        transport.append([Outgoing("t.predictions", b"seldom", b"{")])
        dog.look(at * 10.0)
    for at in range(8, 40):
        transport.append([Outgoing("t.predictions", b"flood", b"{")] * 100)
        dog.look(at * 10.0)
    assert alerts(transport) == []
    for at in range(40, 52):
        dog.look(at * 10.0)
    assert alerts(transport) == [("AlertFired", "service-silent-seldom")], "the flood is over, and nothing came"


def test_garbage_in_the_topics_it_reads_ends_nothing() -> None:
    transport = MemoryTransport(2, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS, transport)
    dog.look(0.0)
    junk = [None, b"", b"{", b"\xff" * 10, b'{"type":"alert_fired"}']
    transport.append([Outgoing(f"t.{kind}", b"k", value) for kind in ("alerts", "metrics", "labels.dlq") for value in junk])
    dog.look(1.0)
    dog.look(62.0)
