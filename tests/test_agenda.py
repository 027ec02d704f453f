"""The agenda: detectors that run ahead over a whole stretch say what they say block by block."""

import numpy as np

from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened
from driftloop.tests.watch_streams import Stream, errors, numbers, play

ROWS = 9_000


def changing() -> Stream:
    rng = np.random.default_rng(3)
    features = numbers(ROWS, 3, 1)
    features[4_000:, 0] += 2.0
    features[4_500:, 1][rng.random(ROWS - 4_500) < 0.3] = np.nan
    features[:, 2][rng.random(ROWS) < 0.01] = np.nan
    stream = Stream(ROWS, features, errors([(4_000, 0.1), (2_500, 0.6), (2_500, 0.1)], 2), delay=40)
    stream.version = 1 + (rng.random(ROWS) < 0.4) * (np.arange(ROWS) > 1_000)
    stream.confidence = np.clip(0.8 + 0.05 * numbers(ROWS, 1, 4)[:, 0], 0.0, 1.0)
    stream.confidence[4_200:] -= 0.2
    stream.latency = rng.lognormal(size=ROWS)
    stream.latency[:2_000] = np.nan
    return stream


def test_running_ahead_over_a_stretch_changes_no_event() -> None:
    stream, config = changing(), MonitorConfig()
    at_once = play(stream, config, [2 * ROWS + 200])
    opened = {event.signal for _, event in at_once if isinstance(event, DriftOpened)}
    assert {"error", "confidence", "feature/f0", "missing/f1"} <= opened
    assert play(stream, config, [32]) == at_once
    assert play(stream, config, [5_000, 777]) == at_once
