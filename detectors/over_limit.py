"""Over the limit: what a bound of the settings refused, counted, and told once a minute of stream time for each bound."""

from __future__ import annotations

from ..schemas.errors import EventInvalid
from .columns import Ints

MINUTE_MS = 60_000


class OverLimit(EventInvalid):
    """The refusal of a record for which a bound leaves no room; `setting` is the bound's name."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__("over_limit", message)
        self.setting = setting


class LimitNotes:
    """The records that bounds refused, from the first of which in a minute a line is made."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, str, str]] = []
        self._told: dict[str, tuple[int, int]] = {}

    def note(self, order: int, setting: str, message: str) -> None:
        """Note a record that the bound `setting` refused."""
        self.noted.append((order, setting, message))

    def take(self, times_ms: Ints, first_order: int) -> list[str]:
        """Return what is to be told of the records noted; `times_ms` are the stream times of the batch, from order `first_order` on."""
        lines = []
        for order, setting, message in sorted(self.noted, key=lambda one: one[:2]):
            minute = int(times_ms[order - first_order]) // MINUTE_MS
            last, since = self._told.get(setting, (-1, 0))
            if minute <= last:
                self._told[setting] = last, since + 1
                continue
            more = f"; {since} more since it was last told" if since else ""
            lines.append(f"monitor.{setting} is reached: {message}{more}")
            self._told[setting] = minute, 0
        self.noted.clear()
        return lines

    def state(self) -> dict[str, tuple[int, int]]:
        """Return when each bound was told last, and how many records it refused since."""
        return self._told

    def restore(self, told: dict[str, tuple[int, int]]) -> None:
        """Take over what `state` gave."""
        self._told = {setting: (minute, since) for setting, (minute, since) in told.items()}
