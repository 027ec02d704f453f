"""From an event to the record that carries it: its topic, key, value and headers, and a way to publish one and wait."""

from __future__ import annotations

import time

from ..schemas.cloudevents import encode_event
from ..schemas.errors import BrokerUnavailable
from ..schemas.events import Event
from ..schemas.topics import topic_of
from ..settings import Settings
from .transport import Outgoing, Transport

FLUSH_S = 30.0


def outgoing(settings: Settings, event: Event, partition: int | None = None) -> Outgoing:
    """Return the record of an event, produced now; without a `partition` it follows from the model's name."""
    return Outgoing(settings.topic(topic_of(event)), *encode_event(event, time.time()), partition=partition)


def publish(settings: Settings, transport: Transport, event: Event) -> None:
    """Write one event to its topic; raises BrokerUnavailable unless it is kept."""
    sender = transport.sender()
    try:
        record = outgoing(settings, event)
        sender.send(record)
        if sender.flush(FLUSH_S):
            raise BrokerUnavailable(f"the event must be acknowledged within {FLUSH_S:g} s ({record.topic})")
    finally:
        sender.close()
