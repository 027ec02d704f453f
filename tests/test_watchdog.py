"""The watchdog over the memory transport: each trouble one alert, over once it is seen to be, and told by one process alone."""

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


def test_garbage_in_the_topics_it_reads_ends_nothing() -> None:
    transport = MemoryTransport(2, clock=lambda: 0.0)
    dog = Watchdog(SETTINGS, transport)
    dog.look(0.0)
    junk = [None, b"", b"{", b"\xff" * 10, b'{"type":"alert_fired"}']
    transport.append([Outgoing(f"t.{kind}", b"k", value) for kind in ("alerts", "metrics", "labels.dlq") for value in junk])
    dog.look(1.0)
    dog.look(62.0)
