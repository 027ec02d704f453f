"""The policy: which events start a job, once, and which never do."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.schemas.config import PolicyConfig
from driftloop.schemas.events import (
    AlertFired,
    AlertResolved,
    DriftClosed,
    DriftOpened,
    DriftUpdated,
    Event,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobRequested,
    RowRange,
)
from driftloop.schemas.verdicts import GateVerdict
from driftloop.streams.policy import ModelState, Policy, rebuild
from driftloop.tests.made_drift import HERE, drift_opened, drift_updated

ROWS = RowRange(partition=1, start_offset=100, labels_start_offset=90)


RESOLVED = AlertResolved(model="m", alert_id="drift-e1", summary="looked at", resolved_by="user")


def opened(episode: str = "e1", rows: int = 0, direction: str = "worse", signal: str = "error") -> DriftOpened:
    return drift_opened(rows, "m", episode, span=ROWS, direction=direction, signal=signal)


def updated(rows: int, episode: str = "e1") -> DriftUpdated:
    return drift_updated(rows, "m", episode, span=msgspec.structs.replace(ROWS, end_offset=100 + rows))


def closed(episode: str = "e1", reason: str = "settled", mean: float = 0.6, rows: int = 9) -> DriftClosed:
    return DriftClosed(
        model="m",
        episode_id=episode,
        version=1,
        signal="error",
        reason=reason,  # type: ignore[arg-type]
        after_mean=mean,
        labelled_rows=rows,
        closed_at=HERE,
    )


def finished(job_id: str) -> JobFinished:
    return JobFinished(model="m", job_id=job_id, recipe="repair", outcome="promoted", reasons=(), duration_s=1.0)


def judged(job_id: str, candidate: float, champion: float = 0.4, *, arm: str = "finetune", promoted: bool = True) -> JobFinished:
    verdict = GateVerdict(
        promoted=promoted,
        reasons=(),
        metric="accuracy",
        candidate=candidate,
        champion=champion,
        difference=candidate - champion,
        interval=(0.0, 1.0),
        rows=75,
        churn=0.0,
        size_bytes=1,
        champion_size_bytes=1,
    )
    outcome = "promoted" if promoted else "rejected"
    done = msgspec.structs.replace(finished(job_id), outcome=outcome, verdict=verdict, arm=arm)
    return msgspec.structs.replace(done, version=2) if promoted else done


def failed(job_id: str) -> JobFailed:
    return JobFailed(model="m", job_id=job_id, recipe="repair", cause="timeout", message="", attempt=1, duration_s=1.0)


def run(events: list[Event], config: PolicyConfig | None = None, state: ModelState | None = None) -> tuple[list[str], ModelState]:
    policy = Policy(PolicyConfig() if config is None else config)
    now = ModelState() if state is None else state
    ids: list[str] = []
    for event in events:
        requests, now = policy.decide(event, now)
        ids += [request.job_id for request in requests]
    return ids, now


def test_first_job_waits_for_enough_labelled_rows() -> None:
    assert run([opened(rows=10), updated(299)])[0] == []
    assert run([opened(rows=10), updated(300)])[0] == ["e1-300"]
    assert run([opened(rows=300)])[0] == ["e1-300"]


def test_request_carries_the_rows_of_the_event_that_made_it_due() -> None:
    policy = Policy(PolicyConfig())
    _, state = policy.decide(opened(rows=10), ModelState())
    (request,), _ = policy.decide(updated(310), state)
    assert request.rows is not None
    assert request.rows.end_offset == 410
    assert (request.requested_by, request.labelled_rows, request.version, request.episode_id) == ("policy", 310, 1, "e1")


def test_request_carries_a_recipe_that_is_not_built_in_whole() -> None:
    for definition in (None, {"arms": {"a": [{"type": "recall"}]}, "gate": {"min_gain": 0.0}}):
        (request,), _ = Policy(PolicyConfig(recipe="mine"), definition).decide(opened(rows=300), ModelState())
        assert (request.recipe, request.definition) == ("mine", definition)


def test_second_job_comes_at_the_second_milestone_once() -> None:
    ids, _ = run([opened(), updated(300), finished("e1-300"), updated(2000), finished("e1-2000"), updated(4000), updated(9000)])
    assert ids == ["e1-300", "e1-2000"]


@pytest.mark.parametrize("end", [finished("e1-300"), failed("e1-300"), JobCancelled(model="m", job_id="e1-300")])
def test_milestone_reached_while_a_job_runs_is_asked_for_when_it_ends(end: Event) -> None:
    assert run([opened(), updated(300), updated(2000)])[0] == ["e1-300"]
    assert run([opened(), updated(300), updated(2000), end])[0] == ["e1-300", "e1-2000"]


def test_milestone_is_asked_for_after_the_episode_has_settled() -> None:
    assert run([opened(), updated(300), updated(2000), closed(), finished("e1-300")])[0] == ["e1-300", "e1-2000"]
    assert run([opened(), updated(300), closed(rows=1000), finished("e1-300"), updated(2000)])[0] == ["e1-300", "e1-2000"]
    assert run([opened(), updated(300), closed(rows=2000), finished("e1-300")])[0] == ["e1-300", "e1-2000"]


@pytest.mark.parametrize(
    "end", [closed(reason="recovered", mean=0.1), closed(reason="superseded"), judged("e1-300", 0.9), RESOLVED]
)
def test_milestone_is_dropped_with_what_it_was_for(end: Event) -> None:
    assert run([opened(), updated(300), closed(rows=1000), end, finished("e1-300"), updated(2000)])[0] == ["e1-300"]


def test_both_milestones_at_once_are_one_job() -> None:
    assert run([opened(rows=2500), finished("e1-2000"), updated(5000)])[0] == ["e1-2000"]


def test_better_other_signals_and_a_disabled_policy_start_nothing() -> None:
    assert run([opened(rows=5000, direction="better")])[0] == []
    assert run([opened(rows=5000, direction="shifted")])[0] == []
    assert run([opened(rows=5000, signal="feature/x")])[0] == []
    assert run([opened(rows=5000)], PolicyConfig(enabled=False))[0] == []
    assert run([opened(rows=5000)], PolicyConfig(max_jobs_per_episode=0))[0] == []


def test_cool_down_and_limit_hold_back_the_second_job() -> None:
    events = [opened(), updated(1900), finished("e1-300"), updated(2000)]
    assert run(events)[0] == ["e1-300"]
    assert run([*events, updated(2100)])[0] == ["e1-300", "e1-2000"]
    assert run([*events, updated(2100)], PolicyConfig(max_jobs_per_episode=1))[0] == ["e1-300"]


def test_one_job_in_flight_per_model_whoever_asked() -> None:
    user = JobRequested(model="m", job_id="mine", recipe="int8", requested_by="user")
    assert run([user, opened(rows=400)])[0] == []
    assert run([user, opened(rows=400), finished("mine")])[0] == ["e1-300"]
    over = closed(reason="superseded")
    assert run([opened(rows=400), over, opened("e2", rows=400)])[0] == ["e1-300"]
    assert run([opened(rows=400), over, opened("e2", rows=400), finished("e1-300")])[0] == ["e1-300", "e2-300"]


def test_replayed_events_ask_for_nothing_more() -> None:
    events: list[Event] = [opened(), updated(300), finished("e1-300"), updated(2000), failed("e1-2000"), closed()]
    ids, state = run(events)
    again, after = run(events, state=state)
    assert (again, after) == ([], state)
    assert run(events)[0] == ids


def test_state_survives_serialisation() -> None:
    _, state = run([opened(), updated(300)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ModelState) == state


def test_alerts_are_told_once_and_taken_back_once() -> None:
    policy = Policy(PolicyConfig())
    events, state = policy.due("m", policy.fold(opened(), ModelState()))
    assert [type(event) for event in events] == [AlertFired]
    assert policy.due("m", state)[0] == []
    events, state = policy.due("m", policy.fold(closed(reason="recovered", mean=0.1), state))
    assert [type(event) for event in events] == [AlertResolved]
    assert policy.due("m", state)[0] == []


def alerts_of(events: list[Event]) -> list[str]:
    """Return what was told of alerts, however often the state is rebuilt on the way."""
    policy = Policy(PolicyConfig(max_jobs_per_episode=0))
    state, sent = ModelState(), list[Event]()
    for at, event in enumerate(events):
        due, state = policy.due("m", policy.fold(event, state))
        sent += due
        past = events[: at + 1]
        drift = [one for one in past if isinstance(one, DriftOpened | DriftUpdated | DriftClosed)]
        rest = [one for one in past if one not in drift and not isinstance(one, AlertResolved)]
        folded = rebuild(policy, [*drift, *rest, *[one for one in past if isinstance(one, AlertResolved)], *sent])
        assert policy.due("m", folded.get("m", ModelState()))[0] == [], "what was told is not told again"
    said = {AlertFired: "fired", AlertResolved: "resolved"}
    return [
        "degraded" if isinstance(one, AlertFired) and one.degraded_since is not None else said[type(one)]  # type: ignore[index]
        for one in sent
        if isinstance(one, AlertFired | AlertResolved)
    ]


def better(mean: float, rows: int, episode: str = "b1", version: int = 1) -> DriftOpened:
    one = opened(episode, rows, "better")
    return msgspec.structs.replace(one, before_mean=0.6, after_mean=mean, effect=(mean - 0.6) / 0.31, version=version)


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([closed()], ["fired", "degraded"]),
        ([closed(), closed(reason="settled")], ["fired", "degraded"]),
        ([closed(reason="superseded")], ["fired"]),
        ([closed(), RESOLVED], ["fired", "degraded"]),
        ([RESOLVED, closed()], ["fired"]),
        ([closed(), better(0.1, 30)], ["fired", "degraded", "resolved"]),
        ([closed(), better(0.4, 300)], ["fired", "degraded"]),
        ([closed(), better(0.1, 1)], ["fired", "degraded"]),
        ([closed(), better(0.1, 30, version=7)], ["fired", "degraded"]),
        ([judged("e1-300", 0.6), closed(), better(0.1, 30, version=2)], ["fired", "degraded", "resolved"]),
        ([judged("e1-300", 0.9)], ["fired", "resolved"]),
        ([closed(), judged("e1-300", 0.9)], ["fired", "degraded", "resolved"]),
        ([judged("e1-300", 0.75), closed()], ["fired", "degraded"]),
        ([judged("e1-300", 0.95, 0.4, promoted=False)], ["fired"]),
        ([judged("e1-300", 0.9, 0.9, arm="champion", promoted=False)], ["fired", "resolved"]),
        ([finished("e1-300")], ["fired"]),
        ([judged("e0-300", 0.9)], ["fired"]),
    ],
)
def test_an_alert_ends_by_recovery_by_a_repair_or_by_a_person(events: list[Event], told: list[str]) -> None:
    assert alerts_of([opened(rows=100), *events]) == told


def test_a_repair_of_a_small_change_on_few_rows_proves_nothing() -> None:
    small = msgspec.structs.replace(opened(rows=300), before_mean=0.10, after_mean=0.17, effect=0.23)
    assert alerts_of([small, judged("e1-300", 0.89, 0.84)]) == ["fired"]


def test_recovery_of_a_later_change_ends_the_alerts_of_earlier_ones_only_where_they_are_over() -> None:
    worse = msgspec.structs.replace(opened("e2", rows=300), before_mean=0.6, after_mean=0.9, effect=1.0)
    assert alerts_of([opened(rows=100), closed(reason="superseded"), worse, closed("e2", "recovered", 0.6)]) == [
        "fired",
        "fired",
        "resolved",
    ]
    ends = ["fired", "fired", "resolved", "resolved"]
    assert alerts_of([opened(rows=100), closed(reason="superseded"), worse, closed("e2", "recovered", 0.1)]) == ends


def test_a_storm_of_input_shifts_starts_no_job_and_no_alert() -> None:
    policy, state, told = Policy(PolicyConfig()), ModelState(), list[Event]()
    storm = [opened(f"f{number}", 5000, "shifted", f"feature/{number}") for number in range(30)]
    for event in [*storm, *(updated(9000, one.episode_id) for one in storm), *(closed(one.episode_id) for one in storm)]:
        due, state = policy.due("m", policy.fold(event, state))
        told += due
    assert (told, state) == ([], ModelState())
    due, _ = policy.due("m", policy.fold(opened(rows=300), state))
    assert [type(event) for event in due] == [AlertFired, JobRequested], "what makes the model worse is told as ever"


@given(st.permutations([opened(), updated(300), updated(2000), finished("e1-300")]), st.integers(0, 4))
def test_lost_memory_never_asks_twice(events: list[Event], crash_after: int) -> None:
    policy = Policy(PolicyConfig())
    sent: list[Event] = []
    state = ModelState()
    for event in events[:crash_after]:
        due, state = policy.due("m", policy.fold(event, state))
        sent += due
    drift = [event for event in events if isinstance(event, DriftOpened | DriftUpdated)]
    state = rebuild(policy, [*drift, *[one for one in sent if isinstance(one, JobRequested)]]).get("m", ModelState())
    for event in [None, *events[max(0, crash_after - 1) :]]:
        due, state = policy.due("m", state if event is None else policy.fold(event, state))
        sent += due
    asked = [event.job_id for event in sent if isinstance(event, JobRequested)]
    assert len(set(asked)) == len(asked)
