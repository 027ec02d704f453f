"""Halves of a batch, taken one after the other, are the batch."""

import random

import pytest

from driftloop.detectors.monitor import Monitor
from driftloop.streams.batch_cuts import halves, tombstone
from driftloop.tests.monitor_logs import batch_of, play, small, told, traffic


@pytest.mark.parametrize("seed", range(3))
def test_pieces_say_what_the_whole_says(seed: int) -> None:
    log = traffic(400, seed, drift_at=200)
    expected = told(play(Monitor(small(), "driftloop.", 0), log, len(log)))
    monitor, chance = Monitor(small(), "driftloop.", 0), random.Random(seed)
    total, pieces = play(monitor, [], 1), [batch_of(log)]
    while pieces:
        piece = pieces.pop()
        if len(piece) > 1 and chance.random() < 0.7:
            pieces.extend(reversed(halves(piece, monitor.places(piece))))
            continue
        effects = monitor.process(piece)
        total.events += effects.events
        total.dead_letters += effects.dead_letters
        for name, count in effects.counters.items():
            total.counters[name] = total.counters.get(name, 0) + count
    assert told(total) == expected


def test_a_tombstone_has_the_place_and_the_time_of_its_record() -> None:
    [record] = traffic(1)[:1]
    made = tombstone(batch_of([record]))
    kept = made.predictions if record.topic == "predictions" else made.labels
    assert (kept.values, kept.keys, kept.offsets, kept.timestamps_ms) == ([None], [None], [record.offset], [record.timestamp_ms])
    assert len(made) == 1
    assert [letter.disposition for letter in Monitor(small(), "driftloop.", 0).process(made).dead_letters] == ["malformed"]
