"""When the data plane commits: often for freshness, seldom enough that its state stays a small part of the traffic, and it of the time."""

from __future__ import annotations

from ..schemas.config import DataPlaneConfig

MAX_STATE_SHARE = 0.25
MAX_TIME_SHARE = 0.04


class CommitPolicy:
    """The interval of commits: between `commit_min_s` and `commit_max_s`, by what the last commits wrote, read and took.

    While records keep coming a commit every `commit_min_s` would take a tenth of the time: no event is worth that, save one of drift,
    which does not wait for the interval.
    """

    def __init__(self, config: DataPlaneConfig) -> None:
        self._config = config
        self._by_state_s = config.commit_min_s
        self._by_time_s = config.commit_min_s
        self._began_at: float | None = None
        self._records = 0
        self._input_bytes = 0
        self._alert = False

    def progressed(self, now_s: float, records: int, input_bytes: int, *, alert: bool) -> None:
        """Take a batch into account."""
        if self._began_at is None:
            self._began_at = now_s
        self._records += records
        self._input_bytes += input_bytes
        self._alert = self._alert or alert

    def due(self, now_s: float, *, idle: bool) -> bool:
        """Return True if what was done since the last commit is to be committed now."""
        if self._began_at is None:
            return False
        age_s = now_s - self._began_at
        limit_s = min(max(self._by_state_s, self._by_time_s), self._config.commit_max_s)
        if idle:
            limit_s = min(limit_s, self._config.commit_min_s)
        if self._alert:
            limit_s = min(limit_s, self._config.alert_commit_s)
        return age_s >= limit_s or self._records >= self._config.commit_records

    def committed(self, state_bytes: int, spent_s: float) -> None:
        """Begin anew, with a longer interval where state was a large part of the traffic or the commit took long."""
        self._by_time_s = max(self._config.commit_min_s, spent_s / MAX_TIME_SHARE)
        share = state_bytes / max(1, self._input_bytes)
        if share > MAX_STATE_SHARE:
            self._by_state_s = min(self._config.commit_max_s, self._by_state_s * 2)
        elif share < MAX_STATE_SHARE / 3:
            self._by_state_s = max(self._config.commit_min_s, self._by_state_s / 2)
        self.reset()

    def reset(self) -> None:
        """Forget what was begun."""
        self._began_at, self._records, self._input_bytes, self._alert = None, 0, 0, False
