"""How large a record the topics take: `max.message.bytes` as the broker has it, so that no output is larger."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource, ResourceType

from ..settings import Settings
from .client_settings import log
from .topics import admin_client

TIMEOUT_S = 5.0
NAME = "max.message.bytes"
# A batch of records has a head, and each record its lengths.
SLACK_BYTES = 1_024


def message_limits(settings: Settings, kinds: Iterable[str]) -> dict[str, int]:
    """Return the limits by topic name; topics whose configuration is not told are left out."""
    admin = admin_client(settings)
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, settings.topic(kind)) for kind in kinds], request_timeout=TIMEOUT_S
    )
    limits = {}
    for resource, future in asked.items():
        try:
            limits[resource.name] = int(future.result(TIMEOUT_S + 1.0)[NAME].value) - SLACK_BYTES
        except (KafkaException, TimeoutError) as problem:
            log.info("limit of %s is not told, %s", resource.name, problem)
    return limits
