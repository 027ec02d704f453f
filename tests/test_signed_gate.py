"""The gate before the monitor lets signed model events pass, and everything where no key is named."""

from pathlib import Path

import pytest

from driftloop.schemas.config import SigningConfig
from driftloop.schemas.events import ModelPromoted
from driftloop.settings import Settings
from driftloop.streams.outgoing import outgoing
from driftloop.streams.signed_gate import SignedGate
from driftloop.streams.signing import FIRST, make_key, signer_of

pytest.importorskip("cryptography")
EVENT = ModelPromoted(model="m", version=1, digest="d", reason="first")


def test_only_what_is_signed_passes(tmp_path: Path) -> None:
    signing = SigningConfig(public_keys=(make_key(tmp_path / "key.pem"),), private_key_file=str(tmp_path / "key.pem"))
    settings = Settings(signing=signing)
    signer = signer_of(signing)
    assert signer is not None
    record, _ = signer.sign(outgoing(settings, EVENT), FIRST)
    gate = SignedGate(settings)
    assert not gate.is_open
    assert gate.passes(record.topic, record.key, record.value, record.headers)
    assert gate.passes(record.topic, record.key, record.value, record.headers), "what was read before is the registry's matter"
    for key, value, headers in (
        (record.key, record.value, None),
        (record.key, record.value, ()),
        (b"other", record.value, record.headers),
        (record.key, b"{}", record.headers),
        (record.key, None, record.headers),
    ):
        assert not gate.passes(record.topic, key, value, headers)
    assert gate.guard.skipped == {"invalid": 5}


def test_without_keys_everything_passes() -> None:
    gate = SignedGate(Settings())
    assert gate.is_open
    assert gate.passes("driftloop.models", None, None, None)
