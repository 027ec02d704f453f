"""The store gives back what was put, or says what is wrong with it."""

import os
import traceback
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from driftloop.compression.store import ArtifactStore, digest_of
from driftloop.schemas.errors import ArtifactInvalid, DriftloopError, NotFound, StoreUnavailable
from driftloop.schemas.manifest import Manifest
from driftloop.tests.onnx_graphs import signature

DATA = b"onnx bytes"


def manifest(data: bytes = DATA, recipe: str = "repair") -> Manifest:
    return Manifest(digest=digest_of(data), size_bytes=len(data), model="m", signature=signature(2, 2), recipe=recipe)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_put_get_and_put_again(tmp_path: Path, kind: str) -> None:
    store = ArtifactStore(str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}")
    first = store.put(DATA, manifest())
    assert first == store.put(DATA, manifest(recipe="another"))
    assert (store.get(first.digest), store.manifest(first.digest)) == (DATA, manifest())
    assert first.uri.endswith(f"/sha256/{first.digest[:2]}/{first.digest}/model.onnx")
    assert "://" in first.uri


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_the_umask_says_who_may_read(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        ArtifactStore(str(tmp_path)).put(DATA, manifest())
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}


def test_tampering_is_noticed_and_mended_by_the_next_put(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    stored = store.put(DATA, manifest())
    path = next(tmp_path.rglob("model.onnx"))
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(ArtifactInvalid, match="digest"):
        store.get(stored.digest)
    store.put(DATA, manifest())
    assert store.get(stored.digest) == DATA
    next(tmp_path.rglob("manifest.json")).write_text("{}")
    with pytest.raises(ArtifactInvalid, match="manifest"):
        store.manifest(stored.digest)


def test_missing_and_strange_digests(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    for read in (store.get, store.manifest):
        with pytest.raises(NotFound):
            read("0" * 64)
        with pytest.raises(ArtifactInvalid, match="hexadecimal"):
            read("../../etc/passwd")


def test_a_manifest_of_other_bytes_is_refused_and_nothing_half_written_stays(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    with pytest.raises(ArtifactInvalid):
        store.put(DATA, manifest(b"other"))
    store.put(DATA, manifest())
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["manifest.json", "model.onnx"]


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    os.truncate(path, 40 * 1024**3)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [fifo, endless, sparse, folder])
def test_what_is_no_plain_file_of_that_size_is_not_read(tmp_path: Path, spoil: object) -> None:
    store = ArtifactStore(str(tmp_path))
    stored = store.put(DATA, manifest())
    spoil(next(tmp_path.rglob("model.onnx")))  # type: ignore[operator]
    for size_bytes in (len(DATA), None):
        with pytest.raises(ArtifactInvalid, match=r"plain file|at most"):
            store.get(stored.digest, size_bytes)
    spoil(next(tmp_path.rglob("manifest.json")))  # type: ignore[operator]
    with pytest.raises(ArtifactInvalid, match=r"plain file|at most"):
        store.manifest(stored.digest)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_another_size_than_announced_is_refused(tmp_path: Path, kind: str) -> None:
    store = ArtifactStore(str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}")
    stored = store.put(DATA, manifest())
    assert store.get(stored.digest, len(DATA)) == DATA
    for wrong in (len(DATA) - 1, len(DATA) + 1):
        with pytest.raises(ArtifactInvalid, match="bytes"):
            store.get(stored.digest, wrong)


def test_a_manifest_must_say_what_the_registration_says(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    stored = store.put(DATA, manifest())
    assert store.check_manifest(stored.digest, "m", signature(2, 2), stored.manifest_digest) == manifest()
    swapped = msgspec.structs.replace(signature(2, 2), classes=(1, 0))
    for model, said in (("m", swapped), ("other", signature(2, 2))):
        with pytest.raises(ArtifactInvalid, match="manifest must be of model"):
            store.check_manifest(stored.digest, model, said)
    with pytest.raises(ArtifactInvalid, match="registered"):
        store.check_manifest(stored.digest, "m", signature(2, 2), "0" * 64)
    with pytest.raises(NotFound):
        store.check_manifest("0" * 64, "m", signature(2, 2))


def test_one_artifact_may_be_registered_for_several_models(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    first = store.put(DATA, manifest())
    other = msgspec.structs.replace(manifest(), model="other")
    second = store.put(DATA, other)
    assert second == replace(first, manifest_digest=second.manifest_digest)
    assert second.manifest_digest != first.manifest_digest
    assert store.put(DATA, other) == second
    assert store.check_manifest(first.digest, "m", signature(2, 2), first.manifest_digest) == manifest()
    assert store.check_manifest(first.digest, "other", signature(2, 2), second.manifest_digest) == other


@pytest.mark.parametrize("url", ["memory://u:CANARY7331@box/models", "memory://box?token=CANARY7331/models"])
def test_a_password_in_the_url_is_in_no_event_and_in_no_error(url: str) -> None:
    store = ArtifactStore(url)
    stored = store.put(DATA, manifest())
    assert "CANARY" not in repr(stored)
    assert store.get(stored.digest) == DATA
    for read in (store.get, store.manifest):
        with pytest.raises(NotFound) as caught:
            read("0" * 64)
        assert "CANARY" not in str(caught.value)
    with pytest.raises(ArtifactInvalid) as wrong:
        store.get(stored.digest, 3)
    assert "CANARY" not in str(wrong.value)


CANARY = "CANARY7331"
AWAY = [
    f"ftp://u:{CANARY}@127.0.0.1:9/store",
    f"simplecache::ftp://u:{CANARY}@127.0.0.1:9/store",
    f"s3://AKIA:{CANARY}@bucket/x",
    f"github://o:r@{CANARY}/x",
    f"abfs://box@account/x?sig={CANARY}&se=1",
    f"sftp://u:{CANARY}@127.0.0.1:9/x",
    f"smb://u:%43{CANARY[1:]}@127.0.0.1/x",
    f"nope://u:{CANARY}@host/x",
    f"zip://a::/nope?token={CANARY}",
    f"/proc/x?token={CANARY}",
    f"file:///proc/x?token={CANARY}",
]


def told_by(error: BaseException) -> str:
    """Return all that a log with a traceback, or whoever walks along its causes, may see of an error."""
    texts = ["".join(traceback.format_exception(error)), repr(error)]
    behind = error.__cause__ or error.__context__
    while behind is not None:
        texts.append(repr(behind))
        texts += [repr(value) for value in vars(behind).values()] + [str(getattr(behind, "filename", ""))]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("url", AWAY)
def test_a_store_that_is_away_shows_no_secret_not_even_in_the_cause(url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        ArtifactStore(url).put(DATA, manifest())
    assert CANARY not in told_by(caught.value)
    assert str(caught.value).startswith("store must answer and have room, got: ")


@pytest.mark.parametrize("url", [f"memory://u:{CANARY}@causes/models", f"memory://causes?token={CANARY}"])
def test_no_cause_of_any_error_of_the_store_shows_a_secret(url: str) -> None:
    store = ArtifactStore(url)
    stored = store.put(DATA, manifest())
    path = store._path(stored.digest, "manifest.json")
    store._fs.pipe_file(path, b"{")
    other = "1" * 64
    store._fs.pipe_file(store._path(other, "manifest.json"), msgspec.json.encode(manifest()))
    calls = [
        lambda: store.get("0" * 64),
        lambda: store.get("../x"),
        lambda: store.get(stored.digest, 3),
        lambda: store.put(DATA, manifest(b"other")),
        lambda: store.manifest(stored.digest),
        lambda: store.manifest(other),
        lambda: store.check_manifest(other, "m", signature(2, 2)),
        lambda: store.check_manifest("0" * 64, "m", signature(2, 2)),
    ]
    for call in calls:
        with pytest.raises(DriftloopError) as caught:
            call()
        assert CANARY not in told_by(caught.value)


def test_without_a_secret_the_cause_is_kept() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        ArtifactStore("/proc/x").put(DATA, manifest())
    assert isinstance(caught.value.__cause__, OSError)
