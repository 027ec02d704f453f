"""Redaction: what of a URL or a librdkafka property may be shown, and texts of other libraries with what may not taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

STARS = "****"
SHORTEST_SECRET = 3  # a text of one or two characters is part of many words
SECRET_WORDS = ("password", "passwd", "secret", "token", "credential", "pem", "jaas", "private", "oauthbearer.config")
SHOWN_PROPERTIES = frozenset(
    {
        "client.id",
        "compression.codec",
        "compression.type",
        "debug",
        "sasl.mechanism",
        "sasl.mechanisms",
        "security.protocol",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "sasl.username",
    }
)
_PLAIN_VALUE = re.compile(r"-?\d+(\.\d+)?|true|false", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?<=://)[^/?#\s]*@[^/?#\s]*")
_QUERY = re.compile(r"(?<=[?&;])([^=&;\s#]+)=([^&;\s#]+)")


def is_secret(name: str) -> bool:
    """Return True for the name of a setting or property that holds what must not be shown."""
    plain = name.lower().replace("_", ".")
    return any(word in plain for word in SECRET_WORDS)


def shown_url(url: str) -> str:
    """Return a URL that may be shown.

    Where someone stands before the host the whole authority goes: which part of it is the secret is a matter of the scheme.
    """
    return _QUERY.sub(rf"\1={STARS}", _AUTHORITY.sub(STARS, url))


def shown_property(name: str, value: str) -> str:
    """Return the value of a librdkafka property, stars where it may be a secret: all but numbers and a few that are known not to be."""
    if name == "bootstrap.servers":
        return ",".join(part.rpartition("@")[2].strip() for part in value.split(","))
    return value if name in SHOWN_PROPERTIES or _PLAIN_VALUE.fullmatch(value) else STARS


def secrets_of(url: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return the texts that no message may hold, the longest first."""
    found: set[str] = set()
    for authority in _AUTHORITY.findall(url):
        found |= {authority, *re.split("[:@]", authority)}
    found |= {value for _, value in _QUERY.findall(url)}
    for name, value in properties.items():
        if name == "bootstrap.servers":
            found |= {part.rpartition("@")[0].strip() for part in value.split(",")}
            found |= {word for part in value.split(",") for word in part.rpartition("@")[0].strip().split(":")}
        elif shown_property(name, value) == STARS:
            found.add(value)
    found |= {unquote(text) for text in found}
    kept = {text for text in found if len(text) >= SHORTEST_SECRET and not text.isdigit()}
    return tuple(sorted(kept, key=lambda text: (-len(text), text)))


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text of another library with every secret taken out."""
    for secret in secrets:
        text = text.replace(secret, STARS)
    return text
