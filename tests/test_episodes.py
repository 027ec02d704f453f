"""Episodes: milestones to the row, settling, recovery, versions that change under an open episode."""

import numpy as np
import pytest

from driftloop.detectors.episodes import direction_of, episode_id, severity_of
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftClosed, DriftOpened, DriftUpdated, Position
from driftloop.tests.watch_streams import Stream, errors, play

DEFAULTS = MonitorConfig()


def drift_of(stream: Stream) -> list[tuple[int, object]]:
    kinds = (DriftOpened, DriftUpdated, DriftClosed)
    return [(order, event) for order, event in play(stream, DEFAULTS, [700]) if isinstance(event, kinds)]


def stretches(*shares: tuple[int, float], seed: int = 1, delay: int = 50) -> Stream:
    rows = sum(count for count, _ in shares)
    return Stream(rows, np.empty((rows, 0)), errors(list(shares), seed), delay=delay)


def test_an_episode_opens_reaches_its_milestones_and_settles() -> None:
    found = [event for _, event in drift_of(stretches((2_000, 0.1), (6_000, 0.6)))]
    opened, *updates, closed = found
    assert isinstance(opened, DriftOpened)
    assert isinstance(closed, DriftClosed)
    assert [update.labelled_rows for update in updates] == [300, 2_000]
    assert (closed.reason, closed.labelled_rows) == ("settled", 4_000)
    assert {event.episode_id for event in found} == {opened.episode_id}
    assert closed.closed_at.offset - opened.rows.start_offset == 4_000 - 1
    assert opened.label_coverage == pytest.approx(1.0, abs=0.05)
    assert opened.detected_at.topic == "driftloop.labels"
    assert opened.change_point.topic == "driftloop.predictions"


def test_labelled_rows_of_a_new_version_count_too() -> None:
    stream = stretches((2_000, 0.1), (6_000, 0.6))
    stream.version[2_150:] = 2
    reached = [event.labelled_rows for _, event in drift_of(stream) if isinstance(event, DriftUpdated)]
    assert reached == [300, 2_000]


def test_an_error_that_comes_back_recovers() -> None:
    found = [event for _, event in drift_of(stretches((2_000, 0.1), (1_500, 0.6), (2_000, 0.1)))]
    assert [type(event) for event in found if not isinstance(event, DriftUpdated)] == [DriftOpened, DriftClosed]
    assert isinstance(found[-1], DriftClosed)
    assert found[-1].reason == "recovered"


def test_another_change_supersedes() -> None:
    found = [event for _, event in drift_of(stretches((2_000, 0.1), (1_500, 0.4), (1_500, 0.9)))]
    kinds = [type(event) for event in found if not isinstance(event, DriftUpdated)]
    assert kinds == [DriftOpened, DriftClosed, DriftOpened]
    closed = next(event for event in found if isinstance(event, DriftClosed))
    assert closed.reason == "superseded"


def test_severity_that_rises_is_told() -> None:
    found = [event for _, event in drift_of(stretches((2_000, 0.1), (150, 0.3), (1_500, 0.7), seed=3))]
    severities = [event.severity for event in found if isinstance(event, DriftOpened | DriftUpdated)]
    assert (severities[0], severities[-1]) == ("medium", "high")


def test_a_version_that_was_away_starts_afresh() -> None:
    stream = stretches((2_000, 0.1), (2_000, 0.1), (4_000, 0.7))
    stream.version[2_000:4_000] = 2
    assert drift_of(stream) == [], "version 1 came back with another level, which is its baseline now"
    stream.version[2_000:4_000] = 1
    assert type(drift_of(stream)[0][1]) is DriftOpened


@pytest.mark.parametrize(
    ("signal", "effect", "direction"),
    [
        ("error", 1, "worse"),
        ("error", -1, "better"),
        ("missing/a", 1, "worse"),
        ("latency_ms", -1, "better"),
        ("confidence", -1, "shifted"),
        ("feature/error", 1, "shifted"),
    ],
)
def test_direction(signal: str, effect: float, direction: str) -> None:
    assert direction_of(signal, effect) == direction


def test_severity_and_id_follow_from_their_inputs_alone() -> None:
    assert [severity_of(effect, DEFAULTS) for effect in (-0.3, 0.5, -1.0)] == ["low", "medium", "high"]
    position = Position(topic="t", partition=1, offset=2, ts=3.0)
    ids = {episode_id("m", "error", position), episode_id("n", "error", position), episode_id("m", "e", position)}
    assert len(ids) == 3
    assert all(len(one) == 16 for one in ids)
    assert episode_id("m", "error", position) == episode_id("m", "error", Position(topic="t", partition=1, offset=2, ts=9.0))
