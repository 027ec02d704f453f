"""From an event to the record that carries it: its topic, key, value, headers and signature, and a way to publish one and wait."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..schemas.cloudevents import encode_event
from ..schemas.errors import BrokerUnavailable, Conflict
from ..schemas.events import Event
from ..schemas.topics import topic_of
from ..settings import Settings
from .registry import read_registry
from .signing import signer_of
from .transport import Outgoing, Transport

FLUSH_S = 30.0
TRIES = 5
MODELS = "models"


def outgoing(settings: Settings, event: Event, partition: int | None = None) -> Outgoing:
    """Return the record of an event, produced now; without a `partition` it follows from the model's name."""
    return Outgoing(settings.topic(topic_of(event)), *encode_event(event, time.time()), partition=partition)


def publish(settings: Settings, transport: Transport, event: Event) -> None:
    """Write one event to its topic; raises BrokerUnavailable unless it is kept.

    Where model events are signed, Conflict unless it also counts: another one may have come first, or the key is none that readers know.
    """
    sender = transport.sender()
    try:
        for _ in range(TRIES):
            (record,) = outgoings(settings, transport, [event])
            sender.send(record)
            if sender.flush(FLUSH_S):
                raise BrokerUnavailable(f"the event must be acknowledged within {FLUSH_S:g} s ({record.topic})")
            if topic_of(event) != MODELS or not settings.signing.public_keys or _counts(settings, transport, record):
                return
    finally:
        sender.close()
    raise Conflict(
        "model event must count for readers, but does not: signing.private_key_file must belong to one of signing.public_keys,"
        f" and {TRIES} others must not come first ({record.topic})"
    )


def outgoings(settings: Settings, transport: Transport, events: Sequence[Event]) -> list[Outgoing]:
    """Return the records of several events, those of models signed where the settings say so, each after the one before it."""
    signer = signer_of(settings.signing)
    if signer is None or all(topic_of(event) != MODELS for event in events):
        return [outgoing(settings, event) for event in events]
    registry = read_registry(transport, settings)
    heads: dict[bytes | None, str] = {}
    records = []
    for event in events:
        record = outgoing(settings, event)
        if topic_of(event) == MODELS:
            record, heads[record.key] = signer.sign(record, heads.get(record.key, registry.head(record.key)))
        records.append(record)
    return records


def _counts(settings: Settings, transport: Transport, record: Outgoing) -> bool:
    """Return whether a signed record stands in the line of those that count."""
    return read_registry(transport, settings).counted(record)
