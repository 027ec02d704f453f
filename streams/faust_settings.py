"""Faust's settings from ours: an address without a password, credentials in their own object, no web server, no topics of its own."""

from __future__ import annotations

import ssl
import warnings
from typing import Any

from ..schemas.errors import SettingsInvalid
from ..settings import Settings
from .client_settings import INSECURE, shown_address
from .faust_transport import URL_SCHEME

with warnings.catch_warnings():
    # Its dependencies use what Python 3.12+ calls deprecated; nothing the user could change.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faust

__all__ = ["App", "credentials", "faust_options", "group_of"]

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class App(faust.App):
    """A Faust app without folders: it would make them at every start, under a name that others know, and without tables none is used."""

    def _create_directories(self) -> None:
        pass


def group_of(settings: Settings) -> str:
    """Return the consumer group, which is the app's name: one for each topic prefix, since a group's members read the same topics."""
    return f"{settings.topics.prefix.rstrip('._-')}-control".removeprefix("-")


def faust_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `faust.App`; raises SettingsInvalid for security settings that Faust has no match for."""
    slot = settings.control.slot
    return {
        "broker": [f"{URL_SCHEME}://{address}" for address in shown_address(settings).split(",")],
        "broker_credentials": credentials(settings.kafka),
        "broker_commit_interval": 0.5,
        "broker_session_timeout": settings.worker.session_timeout_s,
        "broker_heartbeat_interval": min(3.0, settings.worker.session_timeout_s / 3),
        "broker_request_timeout": max(30.0, settings.worker.session_timeout_s + 5.0),
        "consumer_group_instance_id": f"{group_of(settings)}-{slot}",
        "consumer_auto_offset_reset": "earliest",
        "key_serializer": "raw",
        "value_serializer": "raw",
        "producer_linger": 0.0,
        "store": "memory://",
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
        "stream_wait_empty": False,
    }


def credentials(kafka: dict[str, str]) -> Any:
    """Return Faust's credentials object for librdkafka's `security.protocol`, `sasl.*` and `ssl.*`, or None for plain text."""
    protocol = kafka.get("security.protocol", "PLAINTEXT").upper().replace("-", "_")
    if protocol == "PLAINTEXT":
        return None
    if protocol not in ("SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise SettingsInvalid(
            [f"kafka.security.protocol must be plaintext, ssl, sasl_plaintext or sasl_ssl, got {protocol.lower()}"]
        )
    context = _ssl_context(kafka) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in SASL_MECHANISMS:
        raise SettingsInvalid([f"kafka.sasl.mechanism must be one of {', '.join(SASL_MECHANISMS)}, got {mechanism}"])
    return faust.SASLCredentials(
        username=kafka.get("sasl.username"), password=kafka.get("sasl.password"), ssl_context=context, mechanism=mechanism
    )


def _ssl_context(kafka: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=kafka.get("ssl.ca.location"), cadata=kafka.get("ssl.ca.pem"))
        certificate = kafka.get("ssl.certificate.location")
        if certificate is not None:
            context.load_cert_chain(certificate, kafka.get("ssl.key.location"), kafka.get("ssl.key.password"))
    except (OSError, ssl.SSLError) as problem:
        raise SettingsInvalid([f"kafka.ssl.* must name readable certificates and keys, got {problem}"]) from None
    if kafka.get(INSECURE, "false").lower() in ("true", "1"):
        if kafka.get("ssl.endpoint.identification.algorithm", "").lower() == "none":
            context.check_hostname = False
        if kafka.get("enable.ssl.certificate.verification", "").lower() in ("false", "0"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    return context
