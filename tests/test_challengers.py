"""Challengers: what becomes of a proposed version, whatever else is told of its model."""

import pytest

from driftloop.schemas.events import (
    ModelEvent,
    ModelPromoted,
    ModelProposed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    Signature,
)
from driftloop.streams.registry import Registry

SIGNATURE = Signature(task="regression", features=("a",))


def proposed(version: int, job: str = "j", expires_at: float = 100.0, digest: str = "") -> ModelProposed:
    return ModelProposed(
        model="m",
        version=version,
        digest=digest or f"d{version}",
        reason="better",
        expires_at=expires_at,
        previous_version=1,
        job_id=job,
    )


def promoted(version: int, by: str | None = None) -> ModelPromoted:
    return ModelPromoted(model="m", version=version, digest=f"d{version}", reason="r", by=by)


def rejected(version: int | None, by: str | None = "ann") -> ModelRejected:
    return ModelRejected(model="m", reasons=("no",), version=version, by=by)


def registry(*events: ModelEvent) -> Registry:
    made = Registry()
    for version in (1, 2, 3):
        made.apply(ModelRegistered(model="m", version=version, digest=f"d{version}", uri="u", size_bytes=1, signature=SIGNATURE))
    for event in (promoted(1), *events):
        made.apply(event)
    return made


def fates(made: Registry, now_s: float = 0.0) -> list[tuple[int, str]]:
    return [(one.event.version, one.fate(now_s)) for one in made.challengers("m").all]


@pytest.mark.parametrize(
    ("then", "fate"),
    [
        ((), ""),
        ((promoted(2, "ann"),), "it was approved by ann"),
        ((promoted(2),), "it was approved by a person"),
        ((rejected(2),), "it was rejected by ann: no"),
        ((rejected(2), promoted(2, "bob")), "it was rejected by ann: no"),
        ((promoted(3),), "version 3 serves now"),
        ((promoted(3), ModelRolledBack(model="m", version=1, digest="d1", from_version=3, reason="r")), "version 3 serves now"),
        ((rejected(3), rejected(None)), ""),
        ((promoted(1),), ""),
    ],
)
def test_what_becomes_of_a_proposal(then: tuple[ModelEvent, ...], fate: str) -> None:
    made = registry(proposed(2), *then)
    assert fates(made) == [(2, fate)]
    assert (made.challengers("m").waiting(0.0) is None) == bool(fate)


def test_a_proposal_waits_until_its_time_is_over() -> None:
    made = registry(proposed(2))
    assert made.challengers("m").waiting(99.9) is not None
    assert made.challengers("m").waiting(100.0) is None
    assert fates(made, 100.0) == [(2, "it expired, nobody decided")]


def test_the_newest_proposal_waits_alone() -> None:
    made = registry(proposed(2), proposed(3, "k"))
    assert fates(made) == [(2, "version 3 was proposed after it"), (3, "")]
    made.apply(proposed(3, "l"))
    assert fates(made)[1:] == [(3, "version 3 was proposed after it"), (3, "")]


def test_a_version_is_rejected_until_it_is_proposed_again() -> None:
    made = registry(proposed(2), rejected(2))
    assert made.challengers("m").rejected == {2}
    made.apply(proposed(2, "k"))
    assert made.challengers("m").rejected == set()


@pytest.mark.parametrize("event", [proposed(2, digest="other"), proposed(9), proposed(1)])
def test_only_a_registered_version_that_does_not_serve_is_proposed(event: ModelProposed) -> None:
    made = registry()
    assert not made.apply(event)
    assert fates(made) == []


def test_a_rejection_of_what_does_not_wait_is_no_part_of_the_history() -> None:
    made = registry(rejected(2))
    assert not any(isinstance(event, ModelRejected) for event in made.history("m"))
    assert made.apply(rejected(None, None)), "a job's own rejection is"
