"""Count what became of every event of a demo, from the topics and from the monitor's own saved state."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ..detectors.monitor import Monitor
from ..settings import Settings
from .checkpoint import read_parts
from .demo_story import Story
from .transport import Transport

POLL_RECORDS = 1_000
POLL_S = 0.2
INPUTS = ("predictions", "labels")


class Sent(NamedTuple):
    """Be how many events the serving side logged."""

    predictions: int
    labels: int


class Tally(NamedTuple):
    """Be what became of them: `lost` were sent and neither joined nor dead-lettered, `duplicated` came more than once."""

    predictions: int
    labels: int
    joined: int
    dead_lettered: int
    lost: int
    duplicated: int


class Counted(NamedTuple):
    """Be the counts of the monitor: records seen by topic, pairs joined, records dead-lettered by topic."""

    predictions: int
    labels: int
    joined: int
    letters: dict[str, int]


def tally(settings: Settings, transport: Transport, sent: Sent, story: Story) -> Tally:
    """Return the counts once the monitor has committed everything."""
    counters = monitor_counters(settings, transport)
    letters = {kind: count_records(transport, settings.topic(f"{kind}.dlq")) for kind in INPUTS}
    counted = Counted(counters["predictions"], counters["labels"], counters["joined"], letters)
    return balance(sent, counted, story.duplicates())


def balance(sent: Sent, counted: Counted, repeated: int) -> Tally:
    """Return the tally of what was sent and what was counted; `repeated` events of the output topics count as duplicated."""
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
        duplicated=sum(max(0, -count) for count in missing) + repeated,
    )


def monitor_counters(settings: Settings, transport: Transport) -> Counter[str]:
    """Return the counters of all partitions, read back from the state topic as a new data plane would."""
    total: Counter[str] = Counter()
    for partition, parts in read_parts(settings, transport).items():
        total.update(Monitor.restore(settings.monitor, settings.topics.prefix, partition, parts).counters)
    return total


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
