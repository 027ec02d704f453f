"""The log's lines of drift: one for an episode that opens or closes, on one line whatever its names are."""

from driftloop.schemas.events import DriftClosed, DriftOpened, Event, LabelArrived, Position
from driftloop.streams.drift_lines import drift_lines
from driftloop.tests.made_drift import drift_opened, drift_updated

AT = Position(topic="driftloop.predictions", partition=1, offset=42, ts=1.0)


def opened(model: str) -> DriftOpened:
    return drift_opened(30, model, version=3, before_mean=0.1, after_mean=0.5, effect=1.25, change_point=AT)


def test_an_episode_has_a_line_when_it_opens_and_when_it_closes() -> None:
    closed = DriftClosed(
        model="m", episode_id="e1", version=3, signal="error", reason="recovered", after_mean=0.1, labelled_rows=900, closed_at=AT
    )
    updated = drift_updated(300)
    events: list[Event] = [opened("m"), updated, LabelArrived(model="m", prediction_id="p", label=1), closed]
    assert list(drift_lines(events)) == [
        "drift: m version 3: error worse by 1.25 sd (0.1 to 0.5) since driftloop.predictions/1 offset 42, episode e1",
        "drift is over: m version 3: error recovered at 0.1, episode e1",
    ]


def test_no_name_forges_a_line() -> None:
    (line,) = drift_lines([opened("m\nERROR all is lost")])
    assert "\n" not in line
