"""A lane as plain values for msgpack, and back; arrays travel as their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .baseline import Baseline
from .detector import load, save
from .history import Past
from .lanes import NO_DETECTORS, Lane
from .warm_up import WarmUp


def lane_state(lane: Lane) -> Any:
    """Return everything a lane remembers."""
    bank, at, history = lane.bank, lane.index, lane.history
    past = history.newest(len(history))
    return (
        lane.signals,
        (int(bank.block_rows[at]), int(bank.fill[at]), bank.first[at].tobytes(), float(bank.first_ts[at])),
        (bank.center[at].tobytes(), bank.factor[at].tobytes(), bank.sums[at].tobytes(), bank.missing[at].tobytes()),
        [None if known is None else known.state() for known in lane.baselines],
        [[save(detector) for detector in watching] for watching in lane.detectors],
        lane.since,
        [_warm_up_state(warm_up) for warm_up in lane.warm_ups],
        lane.broken,
        (
            *(history.count, len(past.ts), past.rows, past.means.tobytes()),
            *(None if past.present is None else past.present.tobytes(), past.first.tobytes(), past.ts.tobytes()),
        ),
    )


def restore_lane(lane: Lane, state: Any) -> None:
    """Give a new lane what `lane_state` returned; raises ValueError where it is of other signals."""
    signals, clock, sums, baselines, detectors, since, warm_ups, lane.broken, history = state
    if tuple(signals) != lane.signals:
        raise ValueError(f"signals must be {lane.signals}, got {tuple(signals)}")
    bank, at = lane.bank, lane.index
    bank.block_rows[at], bank.fill[at], bank.first_ts[at] = clock[0], clock[1], clock[3]
    bank.first[at] = np.frombuffer(clock[2], np.int64)
    bank.center[at], bank.factor[at], bank.sums[at] = (np.frombuffer(part, np.float64) for part in sums[:3])
    bank.missing[at] = np.frombuffer(sums[3], np.int64)
    lane.baselines = [None if known is None else Baseline(*known) for known in baselines]
    lane.detectors = [[load(one) for one in watching] if watching else NO_DETECTORS for watching in detectors]
    lane.since = list(since)
    lane.warm_ups = [_warm_up(one) for one in warm_ups]
    _restore_history(lane, history)
    lane.rearm()


def _restore_history(lane: Lane, state: Any) -> None:
    count, size, rows, means, present, first, ts = state
    shape = size, lane.bank.width
    past = Past(
        np.frombuffer(means, np.float64).reshape(shape),
        None if present is None else np.frombuffer(present, np.int64).reshape(shape),
        np.frombuffer(first, np.int64).reshape(size, 2),
        np.frombuffer(ts, np.float64),
        rows,
    )
    lane.history.restore(past, count)


def _warm_up_state(warm_up: WarmUp) -> Any:
    filled = warm_up.filled
    return (
        *(warm_up.signals, warm_up.rows, warm_up.column, warm_up.whole, filled, warm_up.values.shape[1]),
        *(warm_up.values[:filled].tobytes(), warm_up.first[:filled].tobytes(), warm_up.ts[:filled].tobytes()),
    )


def _warm_up(state: Any) -> WarmUp:
    signals, rows, column, whole, filled, width, values, first, ts = state
    made = WarmUp(list(signals), rows, column, np.frombuffer(values, np.float64).reshape(filled, width).copy(), whole, filled)
    if whole:
        made.first = np.frombuffer(first, np.int64).reshape(filled, 2).copy()
        made.ts = np.frombuffer(ts, np.float64).copy()
    return made
