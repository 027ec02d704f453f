"""Late jobs: repairs that wait for room in the store for long are an alert each, until they end."""

from __future__ import annotations

from ..schemas.events import JobRequested
from ..schemas.plain_text import one_line
from ..settings import Settings
from .transport import Transport
from .troubles import Trouble, announce, settle


class LateJobs:
    """The repairs that were told of as late, so that their alerts end with them."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._told: set[str] = set()

    def begin(self, request: JobRequested, tries: int, problem: Exception) -> None:
        """Tell that a repair waits still."""
        self._told.add(request.job_id)
        summary = f"{request.model}: its repair waits, {tries} times there was no room for it: {one_line(problem)} (store.url)"
        announce(self._settings, self._transport, [Trouble(_name(request.job_id), summary, "high", request.model)])

    def end(self, job_id: str, *, was_late: bool = False) -> None:
        """Tell that a repair waits no more, if it was late, here or by what its record says."""
        if was_late or job_id in self._told:
            self._told.discard(job_id)
            trouble = Trouble(_name(job_id), "")
            settle(
                self._settings, self._transport, {trouble.alert_id: f"job {one_line(job_id)} waits no more for room in the store"}
            )


def _name(job_id: str) -> str:
    return f"late-{job_id}"
