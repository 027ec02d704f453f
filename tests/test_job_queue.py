"""The queue of jobs: repairs before those of users, fair by model, bounded, and put off as long as a record may say."""

from driftloop.schemas.events import JobCancelled, JobFailed, JobRequested
from driftloop.schemas.records import Record
from driftloop.streams.job_queue import MAX_DELAY_MS, MAX_TRIES, Asked, JobQueue, Step, again, next_step, not_before_ms, tries_of

NOW_MS = 1_000_000


def asked(job_id: str, offset: int, model: str = "m", by: str = "policy", headers: tuple[tuple[str, bytes], ...] = ()) -> Asked:
    request = JobRequested(model=model, job_id=job_id, recipe="repair", requested_by=by)
    record = Record(
        topic="jobs", partition=0, offset=offset, timestamp_ms=NOW_MS, key=model.encode(), value=job_id.encode(), headers=headers
    )
    return Asked(record, request, None)


def queue_of(*jobs: Asked, max_queued: int = 8) -> JobQueue:
    queue = JobQueue(max_queued)
    for one in jobs:
        assert one.command is not None
        queue.take(one.record, one.command)
    return queue


def step(queue: JobQueue, *jobs: Asked, now_ms: int = NOW_MS) -> Step:
    return next_step(queue, jobs, lambda request: None, now_ms)


def ids(records: tuple[Record, ...]) -> list[str]:
    return [(record.value or b"").decode() for record in records]


def test_a_repair_goes_before_jobs_of_users_and_what_waits_comes_again_in_order() -> None:
    jobs = [asked("u1", 0, by="user"), asked("u2", 1, "other", by="user"), asked("r", 2)]
    queue = queue_of(*jobs)
    found = step(queue, *jobs)
    assert found.through is jobs[1].record
    assert ids(found.again) == ["u1", "u2"]
    assert step(queue, jobs[2]).work


def test_the_model_that_was_served_longest_ago_goes_first() -> None:
    jobs = [asked("a2", 0, "a"), asked("b1", 1, "b")]
    queue = queue_of(asked("a1", 9, "a"), *jobs)
    queue.end("a", "a1")
    found = step(queue, *jobs)
    assert (found.work, ids(found.again)) == (False, ["a2"])


def test_what_ended_was_asked_twice_or_taken_back_needs_no_work() -> None:
    jobs = [asked("done", 0), asked("back", 1), asked("done", 2), asked("left", 3)]
    queue = queue_of(*jobs)
    queue.take(
        jobs[0].record, JobFailed(model="m", job_id="done", recipe="repair", cause="error", message="", attempt=1, duration_s=0.0)
    )
    queue.take(jobs[1].record, JobCancelled(model="m", job_id="back"))
    found = step(queue, *jobs)
    assert found.through is jobs[2].record
    assert [(request.job_id, problem.kind) for request, problem in found.failed] == [("back", "cancelled")]
    assert found.again == ()


def test_of_each_model_so_many_wait_and_the_rest_fails_at_once() -> None:
    jobs = [asked(f"j{at}", at, by="user") for at in range(5)]
    queue = queue_of(*jobs, max_queued=2)
    assert queue.is_crowded()
    found = step(queue, *jobs)
    assert [request.job_id for request, _ in found.failed] == ["j2", "j3", "j4"]
    assert ids(found.again) == ["j0", "j1"]
    assert "worker.max_queued" in str(found.failed[0][1])


def test_a_job_that_is_put_off_waits_until_it_is_due_and_others_go_on() -> None:
    outgoing = again(asked("late", 0).record, 3, NOW_MS + 5_000)
    late = asked("late", 0, headers=tuple(outgoing.headers))
    assert (tries_of(late.record), not_before_ms(late.record)) == (3, NOW_MS + 5_000)
    queue = queue_of(late)
    assert step(queue, late) == Step()
    assert step(queue, late, now_ms=NOW_MS + 5_000).work
    other = asked("other", 1, "n")
    queue.take(other.record, JobRequested(model="n", job_id="other", recipe="repair", requested_by="policy"))
    assert ids(step(queue, late, other).again) == ["late"]


def test_a_stranger_s_headers_put_nothing_off_for_ever() -> None:
    wild = (("driftloop_tries", b"9" * 15), ("driftloop_not_before_ms", b"9" * 15))
    assert tries_of(asked("j", 0, headers=wild).record) == MAX_TRIES
    assert not_before_ms(asked("j", 0, headers=wild).record) == NOW_MS + MAX_DELAY_MS
    for value in (b"-1", b"", b"9" * 5_000, b"\xff", "٣".encode()):
        assert tries_of(asked("j", 0, headers=(("driftloop_tries", value),)).record) == 0
