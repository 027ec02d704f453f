"""The newest change of an error that the policy repairs is where one kind of rows begins; all else on the topic is passed over."""

from driftloop.schemas.events import Event, RowRange
from driftloop.schemas.partitions import partition_of
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.newest_change import newest_change
from driftloop.streams.transport import Outgoing
from driftloop.tests.made_drift import drift_opened, drift_updated
from driftloop.tests.worker_world import send

SETTINGS = Settings()
PARTITION = partition_of(b"m", 4)


def span(start: int, partition: int = PARTITION) -> RowRange:
    return RowRange(partition=partition, start_offset=start, labels_start_offset=start)


def found(*events: Event, transport: MemoryTransport | None = None) -> int | None:
    used = MemoryTransport() if transport is None else transport
    send(SETTINGS, used, "drift", *events)
    rows = newest_change(used, SETTINGS, "m", PARTITION)
    return None if rows is None else rows.start_offset


def test_the_newest_of_several_changes_counts_for_better_or_worse() -> None:
    assert found() is None
    first, second = drift_opened(1, span=span(10)), drift_opened(1, episode_id="e2", span=span(40), direction="better")
    assert found(first, second) == 40
    assert found(second, first) == 40, "told late it is no newer"


def test_other_models_signals_partitions_and_updates_change_nothing() -> None:
    mine = drift_opened(1, span=span(10))
    others = [
        drift_opened(1, "other", span=span(50)),
        drift_opened(1, signal="feature/x", span=span(60)),
        drift_opened(1, span=span(70, PARTITION + 1)),
        drift_opened(1, span=span(-5)),
        drift_updated(1, span=span(80)),
    ]
    assert found(*others) is None
    assert found(mine, *others) == 10


def test_garbage_is_passed_over() -> None:
    transport = MemoryTransport()
    transport.append([Outgoing(SETTINGS.topic("drift"), b"m", value) for value in (None, b"", b"{", b"\xff" * 9)])
    assert found(drift_opened(1, span=span(10)), transport=transport) == 10
