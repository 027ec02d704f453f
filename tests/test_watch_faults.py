"""A fault in the watch of one model stays there: it is told, its lane begins anew, and the other models go on as if nothing had been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftloop.detectors import lanes
from driftloop.detectors.blocks import Block
from driftloop.detectors.episodes import EpisodeBook
from driftloop.detectors.faults import Fault
from driftloop.detectors.lanes import Lane
from driftloop.detectors.warm_up import WarmUp
from driftloop.detectors.watch import Watch
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import DriftOpened, Event, MetricsComputed
from driftloop.tests.watch_streams import Stream, errors, numbers, play, table_of

ROWS = 6_000
CONFIG = MonitorConfig(warm_up_rows=100, input_block_rows=16, metrics_every_rows=200, settle_rows=400, milestones=(60, 200))
NAMES = ["good", "bad"]


class Panic(BaseException):
    """A panic in Rust, which is no Exception."""


def two_models(seed: int = 5) -> Stream:
    features = numbers(ROWS, 2, seed)
    features[3_000:, 0] += 2.0
    stream = Stream(ROWS, features, errors([(3_000, 0.1), (3_000, 0.7)], seed), delay=30)
    stream.model = np.arange(ROWS) % 2
    stream.confidence = 0.9 + 0.01 * numbers(ROWS, 1, seed + 1)[:, 0]
    stream.confidence[3_500:] -= 0.1
    return stream


def run(stream: Stream, sizes: list[int], *, restored: bool = False) -> tuple[list[tuple[int, Event]], list[Fault]]:
    table, parts = table_of(NAMES), {}
    watch = Watch(CONFIG, "driftloop.", 0, table)
    told: list[tuple[int, Event]] = []
    faults: list[Fault] = watch.faults
    for inputs, joined in stream.batches(sizes):
        told += watch.observe(inputs, joined)
        if restored:
            parts |= {key: data for key, data in watch.take_dirty().items() if data is not None}
            watch = Watch(CONFIG, "driftloop.", 0, table, faults)
            watch.restore(parts)
    return told, faults


def of(model: str, told: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    return [one for one in told if one[1].model == model]


def failing(method: Any, problem: BaseException, when: Any) -> Any:
    """Return `method`, which fails for the objects and arguments that `when` is true of."""

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when(self, *args):
            raise problem
        return method(self, *args, **kwargs)

    return wrapped


def is_bad(lane: Lane, *_: Any) -> bool:
    return lane.model == 1 and lane.signals == ("error",)


def at_block(lane: Lane, block: Block, *_: Any) -> bool:
    return is_bad(lane) and 3_040 <= block.last[0] < 3_200


CASES = {
    "close": (Lane, "close", ValueError("close"), at_block),
    "judge": (Lane, "_judge", ZeroDivisionError("judge"), is_bad),
    "freeze": (Lane, "_freeze_whole", Panic("freeze"), is_bad),
    "level": (Lane, "level", IndexError("level"), lambda lane, *_: lane.model == 1),
    "episode": (EpisodeBook, "_episode", OverflowError("episode"), lambda book, alarm, tip: tip.model == "bad"),
    "milestone": (EpisodeBook, "reached", KeyError("milestone"), lambda book, model, *_: model == "bad"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_told_and_other_models_are_as_without_it(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = two_models()
    clean, none = run(stream, [700])
    assert none == []
    owner, name, problem, when = CASES[case]
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), problem, when))
    told, faults = run(stream, [700])
    assert of("good", told) == of("good", clean)
    assert faults
    assert {fault.model for fault in faults} == {"bad"}
    assert all(type(problem).__name__ in fault.message for fault in faults)
    metrics = [one for one in of("bad", told) if isinstance(one[1], MetricsComputed)]
    assert metrics == [one for one in of("bad", clean) if isinstance(one[1], MetricsComputed)]
    for sizes in ([100_000], [61, 400], [7]):
        assert run(stream, sizes) == (told, faults), "a fault must not depend on cuts"
    assert run(stream, [333], restored=True) == (told, faults), "nor on restarts"


def test_a_detector_that_fails_while_it_runs_ahead_restarts_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = two_models()
    clean, _ = run(stream, [700])

    class Failing(lanes.Adwin):
        def __init__(self, delta: float) -> None:
            super().__init__(delta)
            self.seen, inner = 0, self.update

            def update(value: float) -> bool:
                self.seen += 1
                if self.seen == 60:
                    raise Panic("a panic")
                return bool(inner(value))

            self.update = update

    begun = Lane.watch

    def watch(lane: Lane, at: int) -> None:
        begun(lane, at)
        if lane.model == 1 and lane.signals == ("confidence",):
            lane.detectors[at][0] = Failing(0.002)

    monkeypatch.setattr(Lane, "watch", watch)
    told, faults = run(stream, [700])
    assert of("good", told) == of("good", clean)
    assert faults
    assert faults[0] == Fault("bad", "confidence of version 1", "Panic: a panic")
    for sizes in ([100_000], [61, 400]):
        assert run(stream, sizes) == (told, faults)


def test_rows_that_a_warm_up_cannot_keep_restart_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = two_models()
    clean, _ = run(stream, [700])
    absorb, lane_absorb = WarmUp.absorb, Lane.absorb
    left = [1]

    def once(lane: Lane, *args: Any) -> None:
        fails = is_bad(lane) and left[0] > 0
        left[0] -= fails
        monkeypatch.setattr(WarmUp, "absorb", failing(absorb, ValueError("no room"), lambda *_: fails))
        lane_absorb(lane, *args)

    monkeypatch.setattr(Lane, "absorb", once)
    told, faults = run(stream, [50], restored=True)
    assert faults == [Fault("bad", "error of version 1", "ValueError: no room")]
    assert of("good", told) == of("good", clean)
    assert any(isinstance(event, DriftOpened) and event.signal == "error" for _, event in of("bad", told))


def test_a_row_that_cannot_be_counted_is_left_out_of_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = two_models()
    clean, _ = run(stream, [700])
    stream.label[1_001] = np.nan
    marks = lanes_marks()

    def strict(self: Any, slot: Any, rows: Any, is_number: Any) -> Any:
        if np.isnan(rows.label).any():
            raise IndexError("class must be known")
        return marks(self, slot, rows, is_number)

    monkeypatch.setattr("driftloop.detectors.metric_sums.WindowSums.marks", strict)
    told, faults = run(stream, [700])
    assert faults == [Fault("bad", "metrics of a row", "IndexError: class must be known")]
    assert of("good", told) == of("good", clean)
    totals = [event.total_rows for _, event in of("bad", told) if isinstance(event, MetricsComputed)]
    assert totals == [event.total_rows for _, event in of("bad", clean) if isinstance(event, MetricsComputed)][: len(totals)]
    assert run(stream, [61, 400]) == (told, faults)


def lanes_marks() -> Any:
    from driftloop.detectors.metric_sums import WindowSums

    return WindowSums.marks


def test_metrics_that_fail_cost_their_report_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = two_models()
    clean, _ = run(stream, [700])
    tell = Watch._metrics
    monkeypatch.setattr(
        Watch, "_metrics", failing(tell, ZeroDivisionError("metrics"), lambda watch, version, *_: version.model == 1)
    )
    told, faults = run(stream, [700])
    assert told == [one for one in clean if not (one[1].model == "bad" and isinstance(one[1], MetricsComputed))]
    assert {(fault.model, fault.part) for fault in faults} == {("bad", "metrics of version 1")}


def test_an_interrupt_is_not_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lane, "close", failing(Lane.close, KeyboardInterrupt(), is_bad))
    with pytest.raises(KeyboardInterrupt):
        run(two_models(), [700])


def test_a_quiet_watch_has_no_faults() -> None:
    watch = Watch(CONFIG, "driftloop.", 0, table_of(NAMES))
    assert watch.faults == []
    assert play(two_models(), CONFIG, [700], NAMES) == run(two_models(), [700])[0]
