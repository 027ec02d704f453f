"""The newest change of a model's error, as the drift topic tells it: the rows since then are of one kind."""

from __future__ import annotations

from collections.abc import Collection

from ..schemas.control_events import decode_control
from ..schemas.errors import EventInvalid, NotFound
from ..schemas.events import DriftClosed, DriftEvent, DriftOpened, Event, RowRange
from ..schemas.plain_text import one_line
from ..schemas.topics import KINDS
from ..settings import Settings
from .transport import Transport
from .watching import read_events

READ_RECORDS = 5_000
POLL_S = 0.2


def newest_change(transport: Transport, settings: Settings, model: str, partition: int) -> RowRange | None:
    """Return the rows since the newest change of a signal that the policy repairs, for better or worse; None without one."""
    topic = settings.topic("drift")
    starts = {(topic, other): end for other, end in transport.end_offsets(topic).items() if other != partition}
    reader = transport.reader([topic], starts | {(topic, partition): 0})
    found: RowRange | None = None
    try:
        while not reader.at_end():
            for record in reader.poll(READ_RECORDS, POLL_S):
                if record.partition != partition or (record.key is not None and record.key != model.encode()):
                    continue
                try:
                    event = decode_control(record, KINDS["drift"].carries)
                except EventInvalid:
                    continue
                rows = _rows(event, model, settings.policy.signals)
                if (
                    rows is not None
                    and rows.partition == partition
                    and rows.start_offset >= 0
                    and (found is None or rows.start_offset >= found.start_offset)
                ):
                    found = rows
    finally:
        reader.close()
    return found


def episode_rows(transport: Transport, settings: Settings, model: str, episode_id: str) -> RowRange:
    """Return the rows since the change of an episode, as it was told of last; raises NotFound."""
    found: RowRange | None = None
    for _, event in read_events(transport, [settings.topic("drift")], DriftEvent):
        if event.model == model and event.episode_id == episode_id:
            found = event.rows if event.rows is not None and not isinstance(event, DriftClosed) else found
    if found is None:
        raise NotFound(
            f"episode must be one of {one_line(model)}, got {one_line(episode_id)} (driftloop watch drift --from-beginning)"
        )
    return found


def _rows(event: Event, model: str, signals: Collection[str]) -> RowRange | None:
    """Return the rows since a change that an event tells of."""
    if event.model != model or not isinstance(event, DriftOpened | DriftClosed) or event.signal not in signals:
        return None
    return event.rows
