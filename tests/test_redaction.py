"""Redaction: no canary in anything that is shown, whatever the scheme and the property; what helps stays readable."""

import pytest

from driftloop.schemas.redaction import is_secret, secrets_of, shown_property, shown_url, without

CANARY = "CANARY7331"
URLS = [
    f"ftp://u:{CANARY}@127.0.0.1:9/store",
    f"http://u:{CANARY}@127.0.0.1:9/store",
    f"s3://AKIA:{CANARY}@bucket/x",
    f"s3://{CANARY}@bucket",
    f"github://o:r@{CANARY}/x",
    f"simplecache::s3://AKIA:{CANARY}@bucket/x",
    f"abfs://box@account/x?sig={CANARY}&se=1",
    f"https://host/x?a=1;token={CANARY}#part",
    f"smb://u:%43{CANARY[1:]}@host/x",
]


@pytest.mark.parametrize("url", URLS)
def test_no_url_shows_its_secret(url: str) -> None:
    assert CANARY not in shown_url(url)
    text = f"ValueError: cannot open {url} as u:{CANARY} or {CANARY}@more at {url.partition('://')[2]}"
    assert CANARY not in without(text, secrets_of(url, {}))


@pytest.mark.parametrize("url", ["./models", "/var/lib/driftloop", "s3://bucket/x", "memory://a", "file:///tmp/a@b/c"])
def test_a_url_without_a_secret_is_shown_whole(url: str) -> None:
    assert shown_url(url) == url
    assert secrets_of(url, {}) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sasl.password", CANARY),
        ("sasl.oauthbearer.config", f"principal={CANARY}"),
        ("ssl.key.pem", f"-----BEGIN {CANARY}"),
        ("plugin.library.paths", f"/x/{CANARY}.so"),
        ("group.id", CANARY),
        ("no.such.property", CANARY),
        ("bootstrap.servers", f"u:{CANARY}@h:1, {CANARY}@[::1]:2"),
    ],
)
def test_no_property_shows_what_may_be_a_secret(name: str, value: str) -> None:
    assert CANARY not in shown_property(name, value)
    assert CANARY not in without(f"{name}: got {value}", secrets_of("./a", {name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [("security.protocol", "SASL_SSL"), ("linger.ms", "5"), ("ssl.ca.location", "/etc/ca"), ("x", "true")]
)
def test_what_is_no_secret_stays_readable(name: str, value: str) -> None:
    assert shown_property(name, value) == value


def test_names_of_secrets() -> None:
    assert all(is_secret(name) for name in ("kafka.sasl_password", "store.SECRET", "ssl.key.pem", "api_token"))
    assert not any(is_secret(name) for name in ("topics.prefix", "monitor.max_features", "store.url"))
