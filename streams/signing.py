"""Signed model events: Ed25519 over a record and the one before it of the same model, so that none is forged, repeated or moved.

A signed record carries `driftloop-signature: 1 <predecessor> <signature>`. Signed are topic, key, predecessor and value, each with its
length before it; the predecessor is the sha256 of the signature before it, or `first`. With the digest of the artifact and of its
manifest in the value, the artifact is signed too. Nothing here shows a private key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..schemas.config import SigningConfig
from ..schemas.errors import Conflict, EventInvalid, SettingsInvalid
from ..schemas.records import Headers
from .transport import Outgoing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HEADER = "driftloop-signature"
FIRST = "first"
_CONTEXT = b"driftloop model event 1"


class Signed(NamedTuple):
    """What a sound signature says: the record's own mark, and that of the record it follows."""

    mark: str
    previous: str


class Signer:
    """A private key that signs records; it shows itself nowhere."""

    def __init__(self, config: SigningConfig) -> None:
        self._key = _read_key(Path(config.private_key_file))

    def __repr__(self) -> str:
        """Return the class alone."""
        return "Signer()"

    def sign(self, record: Outgoing, previous: str) -> tuple[Outgoing, str]:
        """Return the record with its signature, and its mark; `previous` is the mark of the record before it of this model."""
        signature = self._key.sign(_message(record.topic, record.key, previous, record.value))
        said = b" ".join((b"1", previous.encode(), base64.b64encode(signature)))
        return record._replace(headers=(*record.headers, (HEADER, said))), _mark(signature)


class Verifier:
    """The public keys that model events must be signed with; `check` takes any of them."""

    def __init__(self, config: SigningConfig) -> None:
        self._keys = [_public_key(text) for text in config.public_keys]

    def check(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Signed:
        """Return what the signature of a record says; raises EventInvalid without a sound one."""
        said = [held for name, held in headers if name == HEADER]
        if len(said) != 1 or said[0] is None:
            raise EventInvalid("invalid", f"model event must carry one signature, got {len(said)} (signing.public_keys, {topic})")
        parts = said[0].split(b" ")
        try:
            version, previous, signature = parts[0], parts[1].decode("ascii"), base64.b64decode(parts[2], validate=True)
        except (IndexError, UnicodeDecodeError, binascii.Error):
            version, previous, signature = b"", "", b""
        if version != b"1" or not any(_is_signed(one, signature, _message(topic, key, previous, value)) for one in self._keys):
            raise EventInvalid("invalid", f"model event must be signed with one of the keys in signing.public_keys ({topic})")
        return Signed(_mark(signature), previous)


def signer_of(config: SigningConfig) -> Signer | None:
    """Return the signer that the settings name, or None; raises SettingsInvalid."""
    return Signer(config) if config.private_key_file else None


def verifier_of(config: SigningConfig) -> Verifier | None:
    """Return the verifier that the settings name, or None where events need no signature; raises SettingsInvalid."""
    return Verifier(config) if config.public_keys else None


def make_key(file: Path) -> str:
    """Write a new private key that its owner alone may read, and return the public key as the settings take it; raises Conflict."""
    ed25519, serialization = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Conflict(f"key file must be a new one that can be written, got {problem.strerror} ({file})") from None
    with os.fdopen(handle, "wb") as opened:
        opened.write(text)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(public).decode()


def _message(topic: str, key: bytes | None, previous: str, value: bytes | None) -> bytes:
    parts = (_CONTEXT, topic.encode(), b"" if key is None else key, previous.encode(), b"" if value is None else value)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _mark(signature: bytes) -> str:
    return hashlib.sha256(signature).hexdigest()


def _is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _read_key(file: Path) -> Ed25519PrivateKey:
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as problem:
        raise SettingsInvalid([f"signing.private_key_file must be readable, got {problem.strerror} ({file})"]) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SettingsInvalid([f"signing.private_key_file must hold an Ed25519 key as PEM without a password ({file})"]) from None
    found: Ed25519PrivateKey = key
    return found


def _public_key(text: str) -> Ed25519PublicKey:
    ed25519, _ = _cryptography()
    try:
        key: Ed25519PublicKey = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        raise SettingsInvalid(
            ["signing.public_keys must be Ed25519 keys of 32 bytes in base64, as `driftloop model key` prints them"]
        ) from None
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise SettingsInvalid(['[signing] needs the package cryptography: pip install "driftloop[signing]"']) from None
    return ed25519, serialization
