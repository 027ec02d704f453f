"""Snapshots: nothing is trusted that must not be, and saving does not disturb."""

from contextlib import suppress

import msgspec
import pytest
from pydantic import ValidationError

from driftloop.detectors.lane_seal import SHAPING
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import MAX_PART_BYTES, Seal, pack_parts, unpack_parts
from driftloop.schemas.config import MonitorConfig
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
    found = msgspec.msgpack.decode(Seal().close(b"x"))
    newer = msgspec.msgpack.encode([found[0] + 1, *found[1:]])
    with pytest.raises(SnapshotInvalid, match="schema 2, got 3"):
        Seal().open("i/s", newer)


def test_another_river_is_refused_and_a_patch_is_not() -> None:
    data = Seal("0.26.1").close(b"x")
    assert Seal("0.26.9").open("w/i/0/0", data) == b"x"
    with pytest.raises(SnapshotInvalid, match=r"River 0.27, got 0.26.1"):
        Seal("0.27.0").open("w/i/0/0", data)
    assert Seal("0.27.0").open("i/s", data) == b"x"


def changed(field: str) -> MonitorConfig:
    """Return the configuration with another value of one setting."""
    value = getattr(CONFIG, field)
    if isinstance(value, tuple):
        return CONFIG.model_copy(update={field: (70, 90)})
    for factor in (0.5, 2):
        with suppress(ValidationError):
            return MonitorConfig(**CONFIG.model_dump() | {field: type(value)(value * factor)})
    raise AssertionError(f"no other value for {field}")


@pytest.mark.parametrize("field", MonitorConfig.model_fields)
def test_a_changed_setting_starts_anew_what_depends_on_it_and_nothing_else(field: str) -> None:
    monitor, rest = half()
    other = Monitor.restore(changed(field), "driftloop.", 0, unpack_parts(monitor.snapshot()))
    assert other.pending == monitor.pending
    assert other.counters == monitor.counters
    shaped = SHAPING.get(field, ())
    for slot, was in monitor.watch.roster.models.items():
        now = other.watch.roster.models[slot]
        assert now.predictions == was.predictions > 300
        assert now.inputs is not None
        assert was.inputs is not None
        assert (now.inputs.baselines == was.inputs.baselines) == ("inputs" not in shaped)
        for number, version in was.versions.items():
            twin = now.versions[number]
            assert (twin.predictions, twin.labelled) == (version.predictions, version.labelled)
            assert (twin.error.baselines == version.error.baselines) == ("error" not in shaped)
            rows = [
                held.scores.windows.window(one.slot).rows + held.scores.totals[one.slot].rows
                for held, one in ((monitor.watch, version), (other.watch, twin))
            ]
            assert rows[0] == rows[1] > 250
    effects = play(other, rest, 50)
    assert effects.counters["joined"] == len([one for one in rest if one.topic == "labels"])
    is_told = bool(shaped) or field in ("adwin_delta", "page_hinkley_delta", "page_hinkley_threshold")
    assert is_told == any(line.startswith("begun anew") for line in effects.notices)
    assert all(shaped or " detector: " in line for line in effects.notices)


def test_another_threshold_starts_only_its_detector_anew() -> None:
    monitor, _ = half()
    parts = unpack_parts(monitor.snapshot())
    other = Monitor.restore(small(page_hinkley_threshold=7.0), "driftloop.", 0, parts)
    for slot, was in monitor.watch.roster.models.items():
        now, then = other.watch.roster.models[slot].versions[1].error, was.versions[1].error
        for mine, its in zip(now.detectors[0], then.detectors[0], strict=True):
            if its.name == "adwin":
                assert mine.state() == its.state()
            else:
                assert mine.parameters()["threshold"] == 7.0
    back = Monitor.restore(CONFIG, "driftloop.", 0, parts)
    assert back.snapshot() == monitor.snapshot()


def test_a_snapshot_must_be_one() -> None:
    assert unpack_parts(pack_parts({"a": b"x"})) == {"a": b"x"}
    with pytest.raises(SnapshotInvalid, match="map of parts"):
        unpack_parts(b"\x93abc")
