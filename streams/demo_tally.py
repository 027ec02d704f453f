"""Count what became of every event of a demo, from the topics and from the monitor's own saved state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from ..detectors.monitor import Monitor
from ..settings import Settings
from .checkpoint import StateLog
from .transport import Transport

POLL_RECORDS = 1_000
POLL_S = 0.2
INPUTS = ("predictions", "labels")


class Sent(NamedTuple):
    """How many events the serving side logged, and how many events the service wrote more than once."""

    predictions: int
    labels: int
    repeated: int = 0


class Tally(NamedTuple):
    """What became of them: `lost` were sent and neither joined nor dead-lettered, `duplicated` came more than once."""

    predictions: int
    labels: int
    joined: int
    dead_lettered: int
    lost: int
    duplicated: int


class Counted(NamedTuple):
    """The counts of the monitor: records seen by topic, pairs joined, records dead-lettered by topic."""

    predictions: int
    labels: int
    joined: int
    letters: dict[str, int]


def tally(settings: Settings, transport: Transport, sent: Sent, counters: Mapping[str, int]) -> Tally:
    """Return what became of what was sent, given the monitor's counters once it has taken in everything."""
    letters = {kind: count_records(transport, settings.topic(f"{kind}.dlq")) for kind in INPUTS}
    seen, labelled, joined = (counters.get(name, 0) for name in ("predictions", "labels", "joined"))
    return balance(sent, Counted(seen, labelled, joined, letters))


def balance(sent: Sent, counted: Counted) -> Tally:
    """Return the tally of what was sent and what was counted; repeated events of the output topics count as duplicated."""
    labels_joined_or_refused = counted.joined + counted.letters["labels"]
    missing = (
        sent.predictions - counted.predictions,
        sent.labels - counted.labels,
        counted.labels - labels_joined_or_refused,
    )
    return Tally(
        predictions=sent.predictions,
        labels=sent.labels,
        joined=counted.joined,
        dead_lettered=sum(counted.letters.values()),
        lost=sum(max(0, count) for count in missing),
        duplicated=sum(max(0, -count) for count in missing) + sent.repeated,
    )


def saved_counters(settings: Settings, transport: Transport) -> dict[str, int]:
    """Return the monitor's counters of all partitions from the state topic, as a new data plane would restore them."""
    logs: dict[int, StateLog] = {}
    reader = transport.reader([settings.topic("state")], "earliest")
    try:
        while not reader.at_end():
            for record in reader.poll(POLL_RECORDS, POLL_S):
                logs.setdefault(record.partition, StateLog()).add(record.key, record.value)
    finally:
        reader.close()
    total: Counter[str] = Counter()
    for partition, log in logs.items():
        total.update(Monitor.restore(settings.monitor, settings.topics.prefix, partition, log.whole()).counters)
    return dict(total)


def count_records(transport: Transport, topic: str) -> int:
    """Return how many records a topic holds; offsets count the markers of transactions too."""
    reader = transport.reader([topic], "earliest")
    found = 0
    try:
        while not reader.at_end():
            found += len(reader.poll(POLL_RECORDS, POLL_S))
    finally:
        reader.close()
    return found
