"""When the data plane commits."""

from driftloop.schemas.config import DataPlaneConfig
from driftloop.streams.commit_policy import MAX_TIME_SHARE, CommitPolicy

CONFIG = DataPlaneConfig(commit_min_s=0.1, commit_max_s=2.0, commit_records=1_000, alert_commit_s=0.05)
MUCH = 10**9


def begun(policy: CommitPolicy, *, records: int = 10, alert: bool = False) -> CommitPolicy:
    policy.progressed(0.0, records, 1_000, alert=alert)
    return policy


def age_s(policy: CommitPolicy, *, idle: bool = False) -> float:
    """Return after how long a commit is due."""
    return next(number / 1000 for number in range(10_000) if policy.due(number / 1000, idle=idle))


def test_nothing_begun_is_never_due() -> None:
    policy = CommitPolicy(CONFIG)
    assert not policy.due(10**9, idle=True)
    begun(policy).reset()
    assert not policy.due(10**9, idle=True)


def test_the_first_commit_comes_after_the_least_interval() -> None:
    assert age_s(begun(CommitPolicy(CONFIG))) == 0.1


def test_drift_and_many_records_do_not_wait() -> None:
    assert age_s(begun(CommitPolicy(CONFIG), alert=True)) == 0.05
    assert age_s(begun(CommitPolicy(CONFIG), records=1_000)) == 0.0


def test_a_slow_commit_takes_a_bounded_share_of_the_time() -> None:
    policy = begun(CommitPolicy(CONFIG))
    policy.committed(0, 0.02)
    assert abs(age_s(begun(policy)) - 0.02 / MAX_TIME_SHARE) < 0.002
    # Neither drift nor a quiet topic waits for that.
    policy.committed(0, 0.02)
    assert age_s(begun(policy), idle=True) == 0.1
    assert age_s(begun(policy, alert=True)) == 0.05
    # It is the last commit that counts, and the longest interval holds whatever it took.
    policy.committed(0, 0.001)
    assert age_s(begun(policy)) == 0.1
    policy.committed(0, 10.0)
    assert age_s(begun(policy)) == 2.0


def test_much_state_lengthens_the_interval_and_little_shortens_it() -> None:
    policy = CommitPolicy(CONFIG)
    intervals = []
    for state_bytes in (MUCH, MUCH, MUCH, MUCH, MUCH, MUCH, 0, 0, 0, 0, 0, 0):
        begun(policy).committed(state_bytes, 0.0)
        intervals.append(age_s(begun(policy)))
        policy.reset()
    assert intervals == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.1, 0.1]
