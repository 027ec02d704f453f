"""Snapshots: nothing is trusted that must not be, and saving does not disturb."""

import msgspec
import pytest

from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import MAX_PART_BYTES, Seal, pack_parts, unpack_parts
from driftloop.schemas.errors import SnapshotInvalid
from driftloop.tests.monitor_logs import play, small, told, traffic

CONFIG = small()


def half() -> tuple[Monitor, list]:
    log = traffic(1_200, drift_at=700)
    monitor = Monitor(CONFIG, "driftloop.", 0)
    play(monitor, log[:1_300], 100)
    return monitor, log[1_300:]


def test_a_snapshot_goes_on_where_it_was_taken() -> None:
    monitor, rest = half()
    other = Monitor.from_snapshot(CONFIG, "driftloop.", 0, monitor.snapshot())
    assert other.pending == monitor.pending > 0
    assert other.counters == monitor.counters
    assert other.stream_time_ms == monitor.stream_time_ms
    assert told(play(other, rest, 33)) == told(play(monitor, rest, 1_000))


def test_a_snapshot_changes_nothing() -> None:
    monitor, rest = half()
    twin, _ = half()
    monitor.snapshot()
    play(monitor, rest, 100)
    play(twin, rest, 100)
    monitor.snapshot()
    assert monitor.take_dirty() == twin.take_dirty()
    assert monitor.take_dirty() == {}


def test_parts_are_small_and_named_by_their_half() -> None:
    monitor, _ = half()
    parts = monitor.take_dirty()
    assert {name[:2] for name in parts} == {"i/", "w/"}
    assert all(data is None or len(data) <= MAX_PART_BYTES for data in parts.values())


def test_no_parts_are_a_new_monitor() -> None:
    assert Monitor.restore(CONFIG, "driftloop.", 0, {}).pending == 0


def test_damage_is_seen() -> None:
    monitor, _ = half()
    parts = {name: data for name, data in monitor.take_dirty().items() if data is not None}
    for name in ("i/s", "i/t/0", next(name for name in parts if name.startswith("w/"))):
        data = bytearray(parts[name])
        data[-3] ^= 1
        with pytest.raises(SnapshotInvalid, match=f"checksum .*part {name}"):
            Monitor.restore(CONFIG, "driftloop.", 0, {**parts, name: bytes(data)})
    with pytest.raises(SnapshotInvalid, match="must be a driftloop snapshot"):
        Monitor.restore(CONFIG, "driftloop.", 0, {**parts, "i/s": b"nonsense"})


@pytest.mark.parametrize("prefix", ["i/s", "i/p/", "i/t/"])
def test_a_missing_part_is_seen(prefix: str) -> None:
    monitor, _ = half()
    parts = {name: data for name, data in monitor.take_dirty().items() if data is not None}
    gone = next(name for name in parts if name.startswith(prefix))
    del parts[gone]
    with pytest.raises(SnapshotInvalid, match="must be whole"):
        Monitor.restore(CONFIG, "driftloop.", 0, parts)


def test_another_schema_is_refused() -> None:
    found = msgspec.msgpack.decode(Seal(CONFIG).close(b"x"))
    newer = msgspec.msgpack.encode([found[0] + 1, *found[1:]])
    with pytest.raises(SnapshotInvalid, match="schema 1, got 2"):
        Seal(CONFIG).open("i/s", newer)


def test_another_river_is_refused_and_a_patch_is_not() -> None:
    data = Seal(CONFIG, "0.26.1").close(b"x")
    assert Seal(CONFIG, "0.26.9").open("i/s", data) == b"x"
    with pytest.raises(SnapshotInvalid, match=r"River 0.27, got 0.26.1"):
        Seal(CONFIG, "0.27.0").open("i/s", data)


def test_only_settings_that_give_the_state_its_meaning_count() -> None:
    data = Seal(CONFIG).close(b"x")
    assert Seal(small(max_future_s=1, settle_rows=100)).open("i/s", data) == b"x"
    with pytest.raises(SnapshotInvalid, match="clip_sd"):
        Seal(small(clip_sd=3)).open("i/s", data)


def test_a_snapshot_must_be_one() -> None:
    assert unpack_parts(pack_parts({"a": b"x"})) == {"a": b"x"}
    with pytest.raises(SnapshotInvalid, match="map of parts"):
        unpack_parts(b"\x93abc")
