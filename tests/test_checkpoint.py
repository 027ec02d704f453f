"""State is trusted only if it is exactly what the committed pointer names; what else there is is refused by name."""

import msgspec
import pytest

from driftloop.schemas.errors import SnapshotInvalid
from driftloop.streams.checkpoint import (
    MANIFEST_KEY,
    Ledger,
    StateLog,
    chunked,
    decode_manifest,
    decode_pointer,
    encode_pointer,
    is_live,
    part_key,
)

OFFSETS = {"models": 0, "predictions": 7, "labels": 5}
PARTS = {"a": b"one", "b": b"two", "c/1": b"three"}
WHERE = "state/0"


def written(parts: dict[str, bytes], seq: int = 3) -> list[tuple[bytes, bytes | None]]:
    ledger = Ledger()
    for name, data in parts.items():
        ledger.note(name, data)
    manifest = msgspec.json.encode(ledger.manifest(seq, OFFSETS))
    return [*((part_key(name), data) for name, data in parts.items()), (MANIFEST_KEY, manifest)]


def read(records: list[tuple[bytes, bytes | None]]) -> StateLog:
    state = StateLog()
    for key, value in records:
        state.add(key, value)
    return state


def test_what_was_written_is_taken() -> None:
    state = read(written(PARTS))
    ledger = state.check(3, OFFSETS, WHERE)
    assert state.parts == PARTS
    assert ledger.manifest(3, OFFSETS) == state.manifest


@pytest.mark.parametrize(
    "wrong",
    [
        [(part_key("b"), None)],
        [(part_key("b"), b"twO")],
        [(part_key("d"), b"")],
        [(part_key("a"), PARTS["b"]), (part_key("b"), PARTS["a"])],
        [(part_key("b"), None), (part_key("B"), PARTS["b"])],
    ],
    ids=["missing", "changed", "extra", "swapped", "renamed"],
)
def test_other_parts_are_refused(wrong: list[tuple[bytes, bytes | None]]) -> None:
    with pytest.raises(SnapshotInvalid, match=r"state must hold the 3 parts of manifest 3, got \d or others \(state/0\)"):
        read(written(PARTS) + wrong).check(3, OFFSETS, WHERE)


@pytest.mark.parametrize(("records", "found"), [(written(PARTS, 2), 2), (written(PARTS, 4), 4), ([], None)])
def test_another_manifest_is_refused(records: list[tuple[bytes, bytes | None]], found: int | None) -> None:
    with pytest.raises(
        SnapshotInvalid, match=rf"must have the manifest 3 that the committed offsets name, got {found} \(state/0\)"
    ):
        read(records).check(3, OFFSETS, WHERE)


def test_a_deleted_manifest_is_no_manifest() -> None:
    with pytest.raises(SnapshotInvalid, match="got None"):
        read([*written(PARTS), (MANIFEST_KEY, None)]).check(3, OFFSETS, WHERE)


def test_state_of_other_offsets_is_refused() -> None:
    with pytest.raises(SnapshotInvalid, match=r"state must be of the offsets .*'labels': 6.* got .*'labels': 5"):
        read(written(PARTS)).check(3, OFFSETS | {"labels": 6}, WHERE)


def test_tombstones_end_parts_for_ledger_and_log_alike() -> None:
    ledger = Ledger()
    for name, data in [*PARTS.items(), ("b", None), ("never", None), ("a", b"new"), ("c/1", None), ("c/1", b"back")]:
        ledger.note(name, data)
    later = [(part_key("b"), None), (part_key("a"), b"new"), (part_key("c/1"), b"back")]
    manifest = (MANIFEST_KEY, msgspec.json.encode(ledger.manifest(4, OFFSETS)))
    state = read([*written(PARTS), *later, manifest])
    restored = state.check(4, OFFSETS, WHERE)
    assert (restored.hashes, restored.digest) == (ledger.hashes, ledger.digest)
    for name in ("a", "c/1"):
        ledger.note(name, None)
    assert (ledger.hashes, ledger.digest) == ({}, 0)


def test_keys_of_others_are_passed_over() -> None:
    assert read([*written(PARTS), (b"x/other", b"1")]).check(3, OFFSETS, WHERE).hashes.keys() == PARTS.keys()


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"seq":"3","offsets":{},"parts":0,"digest":0}'])
def test_a_manifest_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(SnapshotInvalid, match="manifest must be of version 1"):
        decode_manifest(value)


def test_a_manifest_of_a_later_version_is_refused() -> None:
    later = b'{"v":2,"seq":3,"offsets":{},"parts":0,"digest":0}'
    with pytest.raises(SnapshotInvalid, match="manifest must be of version 1: Invalid enum value 2"):
        decode_manifest(later)


def test_the_pointer_comes_back_from_the_metadata() -> None:
    assert decode_pointer(encode_pointer(12), WHERE) == 12


@pytest.mark.parametrize("metadata", [None, "", "kafka-consumer-groups", '{"by":"x"}', '{"v":2,"seq":3}'])
def test_offsets_that_someone_else_committed_are_refused(metadata: str | None) -> None:
    with pytest.raises(SnapshotInvalid, match=r"committed offsets must carry driftloop's pointer, got .* \(state/0\)"):
        decode_pointer(metadata, WHERE)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 100, 105])
def test_a_part_that_grows_and_shrinks_is_read_as_it_was_written_last(size: int) -> None:
    ledger, records = Ledger(), []
    for data in (bytes(range(35)), bytes(size), None, bytes(range(size))):
        for name, body in chunked("a", data, 10, ledger.hashes):
            ledger.note(name, body)
            assert body is None or len(body) <= 10
            records.append((part_key(name), body))
    other = [(part_key("ab"), b"other")]
    ledger.note("ab", b"other")
    manifest = [(MANIFEST_KEY, msgspec.json.encode(ledger.manifest(3, OFFSETS)))]
    state = read(records + other + manifest)
    state.check(3, OFFSETS, WHERE)
    assert state.whole() == {"a": bytes(range(size)), "ab": b"other"}


def test_a_life_is_told_from_an_end_in_peace() -> None:
    assert is_live(encode_pointer(3, live=True))
    assert not any(map(is_live, (encode_pointer(3), None, "", "{}")))
    assert decode_pointer(encode_pointer(3, live=True), WHERE) == 3
