"""Topics on the real broker: made once, checked, every mismatch told at once."""

import gc
import weakref

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from driftloop.schemas import events
from driftloop.schemas.config import TopicsConfig
from driftloop.schemas.errors import BrokerUnavailable, SettingsInvalid, TopicMismatch
from driftloop.schemas.json_schema import event_types
from driftloop.schemas.topics import KIND_OF, KINDS, topic_of
from driftloop.settings import Settings
from driftloop.streams import topics
from driftloop.streams.kafka import KafkaTransport
from driftloop.streams.topics import TIMESTAMP_BOUND, admin_client, check_topics, delete_topics, ensure_topics, partition_counts
from driftloop.streams.transport import Outgoing


def test_every_event_has_one_topic_and_a_schema() -> None:
    defined = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    }
    assert set(KIND_OF) == defined == set(event_types())
    assert topic_of(events.JobCancelled(model="m", job_id="j")) == "jobs"
    assert topic_of(events.LabelArrived(model="m", prediction_id="p", label=1)) == "labels"


@pytest.mark.kafka
def test_topics_are_made_once_with_their_configuration(settings: Settings) -> None:
    assert check_topics(settings) == [settings.topic(kind) for kind in KINDS]
    assert ensure_topics(settings) == sorted(settings.topic(kind) for kind in KINDS)
    assert ensure_topics(settings) == []
    assert check_topics(settings) == []
    admin = admin_client(settings)
    found = {}
    for kind in ("state", "models", "drift", "predictions", "labels"):
        resource = ConfigResource(ResourceType.TOPIC, settings.topic(kind))
        found[kind] = {name: entry.value for name, entry in admin.describe_configs([resource])[resource].result().items()}
    assert found["state"]["cleanup.policy"] == "compact"
    assert found["state"]["max.message.bytes"] == str(2 * 1024 * 1024)
    assert found["state"]["segment.ms"] == str(30 * 60 * 1000)
    assert found["models"]["retention.ms"] == "-1"
    assert [found[kind][TIMESTAMP_BOUND] for kind in ("predictions", "labels", "models")] == ["3600000"] * 3
    assert found["drift"]["retention.ms"] == str(settings.topics.retention_ms)


@pytest.mark.kafka
def test_a_broker_that_knows_no_bound_of_time_stamps_makes_the_topics_as_well(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "TIMESTAMP_BOUND", "message.no.such.bound")
    assert ensure_topics(settings) == sorted(settings.topic(kind) for kind in KINDS)


@pytest.mark.kafka
def test_dead_letter_topics_take_more_than_their_inputs(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    ensure_topics(settings)
    admin = admin_client(settings)
    limits = {}
    for kind in KINDS:
        resource = ConfigResource(ResourceType.TOPIC, settings.topic(kind))
        limits[kind] = int(admin.describe_configs([resource])[resource].result()["max.message.bytes"].value)
    letters = [kind for kind in KINDS if kind.endswith(".dlq")]
    assert len(letters) == 4
    assert all(limits[kind] > limits[kind.removesuffix(".dlq")] + 100_000 for kind in letters)
    ensure_topics(settings)
    assert "max.message.bytes" not in caplog.text
    name = settings.topic("labels.dlq")
    resource = ConfigResource(ResourceType.TOPIC, name)
    resource.add_incremental_config(ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result()
    # Told, not refused: the limit may be meant.
    assert ensure_topics(settings) == []
    assert f"max.message.bytes of {name} should be at least 1064972, got 1000" in caplog.text


@pytest.mark.kafka
def test_every_mismatch_is_in_one_message_and_nothing_is_made(settings: Settings) -> None:
    admin = admin_client(settings)
    wrong = [
        NewTopic(settings.topic("labels"), num_partitions=3, replication_factor=1),
        NewTopic(settings.topic("state"), num_partitions=2, replication_factor=1, config={"cleanup.policy": "delete"}),
    ]
    for future in admin.create_topics(wrong).values():
        future.result()
    with pytest.raises(TopicMismatch) as caught:
        ensure_topics(settings)
    assert f"{settings.topic('labels')} must have 2 partitions, got 3" in str(caught.value)
    assert f"{settings.topic('state')} must have cleanup.policy=compact, got delete" in str(caught.value)
    assert "driftloop init" in str(caught.value)
    assert settings.topic("drift") not in partition_counts(settings, admin)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("kind", "policy", "wanted"),
    [("predictions", "compact", "delete"), ("models", "compact,delete", "delete"), ("state", "compact,delete", "compact")],
)
def test_a_topic_that_would_lose_records_is_refused(settings: Settings, kind: str, policy: str, wanted: str) -> None:
    name = settings.topic(kind)
    admin = admin_client(settings)
    for future in admin.create_topics([NewTopic(name, 2, 1, config={"cleanup.policy": policy})]).values():
        future.result()
    for check in (ensure_topics, check_topics):
        with pytest.raises(TopicMismatch) as caught:
            check(settings)
        assert f"{name} must have cleanup.policy={wanted}, got {policy}" in str(caught.value)
        assert f"--entity-name {name} --add-config cleanup.policy={wanted}" in str(caught.value)
        assert "topics.partitions" not in str(caught.value)
        assert caught.value.exit_code == 4


@pytest.mark.kafka
def test_deleting_leaves_other_topics_alone(settings: Settings) -> None:
    ensure_topics(settings)
    other = settings.model_copy(update={"topics": TopicsConfig(prefix=settings.topics.prefix + "x.", partitions=2)})
    ensure_topics(other)
    assert len(delete_topics(settings)) == len(KINDS)
    assert check_topics(other) == []


def test_a_broker_that_is_away_is_named_without_credentials() -> None:
    away = Settings(kafka={"bootstrap.servers": "127.0.0.1:9", "sasl.password": "hush"})
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9\b") as caught:
        ensure_topics(away, timeout_s=0.5)
    assert "hush" not in str(caught.value)


def test_a_password_in_an_address_is_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    away = Settings(kafka={"bootstrap.servers": "me:hush@127.0.0.1:9, me:hush@[::1]:9"})
    with pytest.raises(BrokerUnavailable, match="Connection refused") as caught, caplog.at_level("DEBUG"):
        ensure_topics(away, timeout_s=0.5)
    sender = KafkaTransport(away).sender()
    sender.send(Outgoing("t", b"k", b"v"))
    assert sender.flush(0.5) == 1
    sender.close()
    assert "hush" not in str(caught.value) + caplog.text


def test_an_unknown_property_is_a_settings_error() -> None:
    with pytest.raises(SettingsInvalid, match=r"sasl\.pasword"):
        ensure_topics(Settings(kafka={"sasl.pasword": "hush"}), timeout_s=0.5)


def test_a_client_goes_with_the_last_who_holds_it() -> None:
    admin = admin_client(Settings(kafka={"bootstrap.servers": "127.0.0.1:9"}))
    held = weakref.ref(admin)
    gc.disable()
    try:
        admin.why()  # whether it has met the refusal yet is a matter of time
        del admin
        assert held() is None
    finally:
        gc.enable()
