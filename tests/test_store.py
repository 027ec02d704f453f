"""The store gives back what was put, or says what is wrong with it."""

import os
from pathlib import Path

import pytest

from driftloop.compression.store import ArtifactStore, digest_of
from driftloop.schemas.errors import ArtifactInvalid, NotFound
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
