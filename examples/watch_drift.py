"""How does a program of one's own learn of drift, and what does a drift event tell?

driftloop watch drift --from-beginning | python examples/watch_drift.py
driftloop replay history.csv --label y --prediction p | python examples/watch_drift.py
"""

import sys

import msgspec

from driftloop.schemas.codecs import decode
from driftloop.schemas.events import DriftClosed, DriftEvent, DriftOpened


def sentence(event: DriftEvent) -> str:
    """Return what an event says, in words."""
    if isinstance(event, DriftOpened):
        change = event.change_point
        return (
            f"{event.model} version {event.version}: {event.signal} is {event.direction} since offset {change.offset} of"
            f" {change.topic}[{change.partition}], from {event.before_mean:.3g} to {event.after_mean:.3g}"
            f" ({event.severity}, by {event.detector}); seen at offset {event.detected_at.offset}"
        )
    if isinstance(event, DriftClosed):
        return f"{event.model} version {event.version}: {event.signal} {event.reason}, now {event.after_mean:.3g}"
    return f"{event.model} version {event.version}: {event.signal}, {event.labelled_rows} labelled rows since the change"


def main() -> None:
    """Read NDJSON events from standard input; other fields, such as `_offset` or `row`, are no concern of theirs."""
    for line in sys.stdin.buffer:
        if line.strip():
            event = decode(line, DriftEvent, "standard input")
            print(sentence(event), msgspec.json.encode(event.rows).decode() if isinstance(event, DriftOpened) else "", flush=True)


if __name__ == "__main__":
    main()
