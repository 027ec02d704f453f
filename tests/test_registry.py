"""The registry: a fold that repeats, contradictions and bad records do not mislead."""

import json

import pytest

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.config import MonitorConfig, TopicsConfig
from driftloop.schemas.errors import Conflict, EventInvalid
from driftloop.schemas.events import (
    MAX_VERSION,
    Event,
    ModelEvent,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    Signature,
)
from driftloop.schemas.records import Batch, Record, Slice
from driftloop.settings import Settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.registry import Registry, read_registry
from driftloop.streams.transport import Outgoing

SIGNATURE = Signature(task="classification", features=("a",), classes=(0, 1))


def registered(version: int, model: str = "m", **more: object) -> ModelRegistered:
    fields = {"digest": f"d{version}", "uri": "u", "size_bytes": 1, "signature": SIGNATURE, **more}
    return ModelRegistered(model=model, version=version, **fields)


def promoted(version: int, model: str = "m", job_id: str | None = None) -> ModelPromoted:
    return ModelPromoted(model=model, version=version, digest=f"d{version}", reason="r", job_id=job_id)


def registry_of(*events: ModelEvent) -> Registry:
    registry = Registry()
    for event in events:
        registry.apply(event)
    return registry


def champion(registry: Registry, model: str = "m") -> int | None:
    found = registry.champion(model)
    return None if found is None else found.version


def test_a_registered_model_serves_only_once_promoted() -> None:
    registry = registry_of(registered(1))
    assert champion(registry) is None
    assert registry.next_version("m") == 2
    assert registry.next_version("unknown") == 1
    assert registry.apply(promoted(1))
    assert champion(registry) == 1
    assert registry.models == ["m"]


def test_repeated_events_change_nothing() -> None:
    story: list[ModelEvent] = [
        registered(1),
        promoted(1),
        registered(2, job_id="j"),
        promoted(2, job_id="j"),
        promoted(1, job_id="k"),
    ]
    once = registry_of(*story)
    # The retry of job j comes after job k has brought version 1 back.
    twice = registry_of(*story, *story[2:4], story[0])
    assert champion(once) == champion(twice) == 1
    assert once.history("m") == twice.history("m") == story
    assert once.versions("m") == twice.versions("m")


def test_a_person_may_promote_the_same_version_again_later() -> None:
    registry = registry_of(registered(1), registered(2), promoted(1), promoted(2), promoted(1), promoted(2))
    assert champion(registry) == 2
    assert len(registry.history("m")) == 6


def test_the_first_artifact_of_a_version_stays() -> None:
    registry = registry_of(registered(1), promoted(1))
    assert not registry.apply(registered(1, digest="other"))
    assert not registry.apply(ModelPromoted(model="m", version=1, digest="other", reason="r"))
    assert not registry.apply(promoted(7))
    assert registry.versions("m")[0].digest == "d1"
    assert champion(registry) == 1


def test_rollback_goes_back_step_by_step() -> None:
    registry = registry_of(registered(1), registered(2), registered(3), promoted(1), promoted(2), promoted(3))
    for version in (2, 1):
        event = registry.rollback("m")
        assert (event.version, event.digest) == (version, f"d{version}")
        assert registry.apply(event)
        assert not registry.apply(event)
        assert champion(registry) == version
    with pytest.raises(Conflict, match="earlier champion"):
        registry.rollback("m")


def test_a_rollback_that_comes_too_late_is_left_out() -> None:
    registry = registry_of(registered(1), registered(2), registered(3), promoted(1), promoted(2))
    late = registry.rollback("m")
    registry.apply(promoted(3))
    assert not registry.apply(late)
    assert champion(registry) == 3


def test_rolling_back_to_a_version_outside_the_line_is_obeyed() -> None:
    registry = registry_of(registered(1), registered(2), registered(3), promoted(1), promoted(3))
    assert registry.apply(ModelRolledBack(model="m", version=2, digest="d2", from_version=3, reason="r"))
    assert champion(registry) == 2
    previous = registry.previous_champion("m")
    assert previous is not None
    assert previous.version == 1


def test_the_topic_is_read_to_its_end_and_bad_records_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(topics=TopicsConfig(prefix="p."))
    transport = MemoryTransport()
    sender = transport.sender()

    def send(event: Event) -> None:
        key, value, headers = encode_event(event, 0.0)
        sender.send(Outgoing(settings.topic("models"), key, value, headers))

    send(registered(1))
    sender.send(Outgoing(settings.topic("models"), b"m", b"{not json"))
    sender.send(Outgoing(settings.topic("models"), b"m", None))
    send(promoted(1))
    send(ModelRejected(model="m", reasons=("worse",), job_id="j"))
    send(registered(1, model="other"))
    registry = read_registry(transport, settings)
    assert registry.models == ["m", "other"]
    assert champion(registry) == 1
    assert [type(event).__name__ for event in registry.history("m")] == ["ModelRegistered", "ModelPromoted", "ModelRejected"]
    # Told once a minute, however many there are.
    assert caplog.text.count("passed over") == 1


@pytest.mark.parametrize(
    ("taken", "following"),
    [
        ({MAX_VERSION}, 1),
        ({1, 2, 3, MAX_VERSION}, 4),
        ({MAX_VERSION - 1}, MAX_VERSION),
        ({1, MAX_VERSION - 1, MAX_VERSION}, 2),
        ({2}, 3),
    ],
)
def test_the_next_version_is_one_that_predictions_may_carry(taken: set[int], following: int) -> None:
    assert registry_of(*[registered(version) for version in sorted(taken)]).next_version("m") == following


@pytest.mark.parametrize("version", [0, -5, MAX_VERSION + 1, 10**30, 10**4000])
@pytest.mark.parametrize("kind", ["model_registered", "model_promoted", "model_rolled_back"])
def test_a_version_that_no_prediction_may_carry_is_no_model_event(kind: str, version: int) -> None:
    said = {
        "type": kind,
        "model": "m",
        "version": version,
        "digest": "d",
        "uri": "u",
        "size_bytes": 1,
        "reason": "r",
        "from_version": 1,
    }
    value = json.dumps(said | {"signature": {"task": "regression", "features": ["a"]}}).encode()
    registry = Registry()
    assert not registry.apply_record(Record(topic="models", partition=0, offset=0, timestamp_ms=0, key=b"m", value=value))
    assert registry.models == []
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    effects = monitor.process(Batch(models=Slice([value], [b"m"], [0], [0])))
    assert [letter.disposition for letter in effects.dead_letters] == ["invalid"]
    assert "version" in effects.dead_letters[0].message
    with pytest.raises(EventInvalid, match="version must be 1 to"):
        registered(version)
