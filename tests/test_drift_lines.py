"""The log's lines of drift: one for an episode that opens or closes, on one line whatever its names are."""

from driftloop.schemas.events import DriftClosed, DriftOpened, DriftUpdated, Event, LabelArrived, Position, RowRange
from driftloop.streams.drift_lines import drift_lines

AT = Position(topic="driftloop.predictions", partition=1, offset=42, ts=1.0)
ROWS = RowRange(partition=1, start_offset=42, labels_start_offset=40)


def opened(model: str) -> DriftOpened:
    return DriftOpened(
        model=model,
        episode_id="e1",
        version=3,
        signal="error",
        detector="adwin",
        parameters={},
        direction="worse",
        severity="high",
        before_mean=0.1,
        after_mean=0.5,
        effect=1.25,
        change_point=AT,
        detected_at=AT,
        rows=ROWS,
        labelled_rows=30,
    )


def test_an_episode_has_a_line_when_it_opens_and_when_it_closes() -> None:
    closed = DriftClosed(
        model="m", episode_id="e1", version=3, signal="error", reason="recovered", after_mean=0.1, labelled_rows=900, closed_at=AT
    )
    updated = DriftUpdated(
        model="m",
        episode_id="e1",
        version=3,
        signal="error",
        direction="worse",
        severity="high",
        after_mean=0.5,
        effect=1.2,
        rows=ROWS,
        labelled_rows=300,
        updated_at=AT,
    )
    events: list[Event] = [opened("m"), updated, LabelArrived(model="m", prediction_id="p", label=1), closed]
    assert list(drift_lines(events)) == [
        "drift: m version 3: error worse by 1.25 sd (0.1 to 0.5) since driftloop.predictions/1 offset 42, episode e1",
        "drift is over: m version 3: error recovered at 0.1, episode e1",
    ]


def test_no_name_forges_a_line() -> None:
    (line,) = drift_lines([opened("m\nERROR all is lost")])
    assert "\n" not in line
