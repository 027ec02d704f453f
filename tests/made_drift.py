"""Drift events as a monitor would tell them, made from what a test cares for."""

from typing import Any

import msgspec

from driftloop.schemas.events import DriftOpened, DriftUpdated, Position, RowRange

HERE = Position(topic="labels", partition=0, offset=500, ts=1.0)
ROWS = RowRange(partition=0, start_offset=5, labels_start_offset=5)


def drift_opened(rows: int = 0, model: str = "m", episode_id: str = "e1", *, span: RowRange = ROWS, **changes: Any) -> DriftOpened:
    """Return an error that became worse, with so many labelled rows since; `span` says where they lie."""
    event = DriftOpened(
        model=model,
        episode_id=episode_id,
        version=1,
        signal="error",
        detector="adwin",
        parameters={},
        direction="worse",
        severity="high",
        before_mean=0.1,
        after_mean=0.6,
        effect=1.6,
        change_point=HERE,
        detected_at=HERE,
        rows=span,
        labelled_rows=rows,
    )
    return msgspec.structs.replace(event, **changes)


def drift_updated(rows: int, model: str = "m", episode_id: str = "e1", *, span: RowRange = ROWS, **changes: Any) -> DriftUpdated:
    """Return what is told of the same episode later."""
    event = DriftUpdated(
        model=model,
        episode_id=episode_id,
        version=1,
        signal="error",
        direction="worse",
        severity="high",
        after_mean=0.6,
        effect=1.6,
        rows=span,
        labelled_rows=rows,
        updated_at=HERE,
    )
    return msgspec.structs.replace(event, **changes)
