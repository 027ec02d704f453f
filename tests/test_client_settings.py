"""librdkafka properties: pass-through, what is ours, what is refused, what is never shown."""

import logging

import pytest
from confluent_kafka import Consumer, Producer

from driftloop.schemas.errors import SettingsInvalid
from driftloop.settings import Settings
from driftloop.streams.client_settings import (
    Membership,
    OncePerMinute,
    base_properties,
    fetch_properties,
    member_properties,
    producer_properties,
    reader_properties,
    shown_address,
    transactional_properties,
)

SASL = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "me", "sasl.password": "hush"}
MEMBER = Membership("g", "0", 6.0)


def test_security_properties_reach_every_client() -> None:
    settings = Settings(kafka={**SASL, "bootstrap.servers": "a:1,b:2"})
    for properties in (
        reader_properties(settings),
        member_properties(settings, MEMBER),
        producer_properties(settings),
        transactional_properties(settings, "t", 10.0),
    ):
        assert SASL.items() <= properties.items()
        assert properties["bootstrap.servers"] == "a:1,b:2"


def test_librdkafka_knows_every_property_we_set() -> None:
    settings = Settings()
    Consumer(reader_properties(settings)).close()
    Consumer(member_properties(settings, MEMBER)).close()
    Producer(producer_properties(settings))
    Producer(transactional_properties(settings, "t", 10.0))


def test_properties_of_ours_and_unsafe_switches_are_refused_together() -> None:
    kafka = {"isolation.level": "read_uncommitted", "acks": "0", "enable.ssl.certificate.verification": "false"}
    with pytest.raises(SettingsInvalid) as caught:
        base_properties(Settings(kafka=kafka))
    assert len(caught.value.problems) == 3
    for name in kafka:
        assert f"kafka.{name} " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("enable.ssl.certificate.verification", "False"), ("ssl.endpoint.identification.algorithm", "none")]
)
def test_unsafe_switches_need_insecure_and_are_said_loudly(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsInvalid, match="insecure"):
        base_properties(Settings(kafka={name: value}))
    with caplog.at_level(logging.WARNING):
        properties = base_properties(Settings(kafka={name: value, "insecure": "true"}))
    assert properties[name] == value
    assert "insecure" not in properties
    assert name in caplog.text


def test_fetch_sizes_stay_within_the_memory_given() -> None:
    for memory_bytes in (1 << 20, 64 << 20, 1 << 30):
        properties = fetch_properties(memory_bytes)
        assert properties["queued.max.messages.kbytes"] * 1024 <= memory_bytes
        assert properties["fetch.message.max.bytes"] <= properties["fetch.max.bytes"] <= max(1 << 20, memory_bytes // 4)
    assert fetch_properties(256 << 20)["fetch.message.max.bytes"] == 2 << 20


def test_what_the_user_set_goes_before_fetch_sizes_of_ours() -> None:
    settings = Settings(kafka={"fetch.message.max.bytes": "70000"})
    ours = fetch_properties(256 << 20, wait_ms=20)
    for properties in (reader_properties(settings), reader_properties(settings, ours), member_properties(settings, MEMBER)):
        assert properties["fetch.message.max.bytes"] == "70000"
    assert reader_properties(Settings(), ours).items() >= ours.items()


def test_an_address_is_shown_without_credentials() -> None:
    assert shown_address(Settings(kafka={"bootstrap.servers": "me:hush@a:1, b:2"})) == "a:1,b:2"


def test_a_message_is_told_once_a_minute_whatever_its_numbers() -> None:
    quiet = OncePerMinute()

    def told(text: str, at: float) -> bool:
        record = logging.LogRecord("n", logging.WARNING, "f", 1, text, None, None)
        record.created = at
        return quiet.filter(record)

    assert told("connect to 127.0.0.1:9 failed after 1ms", 1000.0)
    assert not told("connect to 127.0.0.1:9 failed after 27ms", 1059.0)
    assert told("another thing", 1059.0)
    assert told("connect to 127.0.0.1:9 failed after 3ms", 1061.0)
    assert not told("GETPID: Broker: Coordinator load in progress: retrying", 2000.0)
    assert not told("property fetch.wait.max.ms is a consumer property and will be ignored by this producer instance", 3000.0)


def test_a_property_that_is_ours_is_not_quoted() -> None:
    with pytest.raises(SettingsInvalid, match=r"kafka\.group\.id must be left out") as caught:
        base_properties(Settings(kafka={"group.id": "canary"}))
    assert "canary" not in str(caught.value)
