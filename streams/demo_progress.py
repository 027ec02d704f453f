"""Tell on stderr what the demo does: a bar on a terminal, a line for each thing that happens everywhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..schemas.events import DriftOpened, JobFailed, JobFinished, JobRequested, ModelPromoted
from .demo_story import Story

SHOWN = (DriftOpened, JobRequested, JobFinished, JobFailed, ModelPromoted)


class PlayProgress:
    """A display of how far the traffic is and what the topics told since."""

    def __init__(self, console: Console, story: Story, rows: tuple[int, int]) -> None:
        self._console = console
        self._story = story
        self._first_row, last = rows
        self._told = 0
        columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("rows", total=last, completed=self._first_row)

    def __enter__(self) -> PlayProgress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the bar away."""
        self._bar.stop()

    def __call__(self, row: int) -> None:
        """Show that every row before `row` was served, and what is new."""
        self._bar.update(self._task, completed=row)
        for told in self._story.told[self._told :]:
            if isinstance(told.event, SHOWN):
                self._console.print(sentence(told.event, lambda offset: self._first_row + offset))
        self._told = len(self._story.told)


def sentence(event: Any, row: Callable[[int], int]) -> str:
    """Return one line about an event; `row` maps an offset to a row of the table."""
    match event:
        case DriftOpened():
            where = f"since row {row(event.change_point.offset)}, found at row {row(event.detected_at.offset)}"
            return f"drift: {event.signal} {event.direction} {where} ({event.detector}, {event.severity})"
        case JobRequested():
            return f"repair asked for with {event.labelled_rows} labelled rows since the change"
        case JobFinished():
            arm = "" if event.arm is None else f" by {event.arm}"
            return f"repair {event.outcome}{arm} in {event.duration_s:.1f} s: {'; '.join(event.reasons)}"
        case JobFailed():
            return f"repair failed: {event.cause}: {event.message}"
        case ModelPromoted():
            return f"version {event.version} is the champion: {event.reason}"
    raise TypeError(f"event must be one that is shown, got {type(event).__name__}")
