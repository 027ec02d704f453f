"""The player: rows and labels in order, a bounded lead, traffic held while a repair runs, swaps at the row they take effect."""

import time

import numpy as np
import pytest

from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.codecs import decode
from driftloop.schemas.errors import DriftloopError
from driftloop.schemas.events import (
    DriftOpened,
    JobFinished,
    JobRequested,
    LabelArrived,
    ModelPromoted,
    Position,
    PredictionMade,
    RowRange,
)
from driftloop.settings import Settings
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.demo_serving import ClientLog
from driftloop.streams.demo_story import Story
from driftloop.streams.labelled_table import Table
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.player import PlayConfig, Player, Served, Stage
from driftloop.streams.transport import Outgoing
from driftloop.tests.made_drift import drift_opened

ROWS, FIRST, CHANGE, NEEDED = 2_000, 400, 1_000, 300


class Rule:
    """Predict the class by the sign of the first feature, turned round or not."""

    def __init__(self, *, turned: bool) -> None:
        self.turned = turned

    def scores(self, features: np.ndarray) -> np.ndarray:
        second = (features[:, 0] > 0) != self.turned
        return np.stack([~second, second], axis=1).astype(np.float32)


class Serving:
    """Serve what the models topic says."""

    def __init__(self, transport: MemoryTransport, settings: Settings) -> None:
        self.reader = transport.reader([settings.topic("models")])
        self.served = Served(1, Rule(turned=False))

    def current(self) -> Served:
        for record in self.reader.poll(10, 0.0):
            version = decode(record.value, ModelPromoted, "models").version
            self.served = Served(version, Rule(turned=version == 2))
        return self.served


class Service:
    """Take in `rate` records a pump; open an episode at the label that makes NEEDED after the change; repair in `repair_pumps` pumps."""

    def __init__(self, transport: MemoryTransport, settings: Settings, repair_pumps: int = 20) -> None:
        self.settings, self.sender, self.repair_pumps = settings, transport.sender(), repair_pumps
        group = settings.monitor_group
        self.inputs = [transport.work(group, settings.topic(kind), "0") for kind in ("predictions", "labels")]
        self.jobs = transport.work("jobs", settings.topic("jobs"), "0")
        self.control = ControlLoop(settings, transport)
        self.taken = [0, 0]
        self.job: tuple[JobRequested, int] | None = None
        self.predictions_at_job: list[int] = []

    def pump(self) -> bool:
        for at, work in enumerate(self.inputs):
            for _ in range(30):
                record = work.take(0.0)
                if record is None:
                    break
                self.taken[at] += 1
                decode(record.value, (PredictionMade, LabelArrived)[at], "input")
                work.finish(record, [self.out("drift", self.episode())] if at and self.taken[1] == CHANGE - FIRST + NEEDED else [])
        self.control.step()
        self.repair()
        return True

    def repair(self) -> None:
        record = self.jobs.take(0.0) if self.job is None else None
        if record is not None:
            self.job = decode(record.value, JobRequested, "jobs"), self.repair_pumps
            self.jobs.finish(record, [])
        if self.job is None:
            return
        request, left = self.job
        self.job = (request, left - 1) if left else None
        self.predictions_at_job.append(self.taken[0])
        if not left:
            self.tell("models", ModelPromoted(model="demo", version=2, digest="b", reason="better", job_id=request.job_id))
            end = JobFinished(model="demo", job_id=request.job_id, recipe="repair", outcome="promoted", reasons=(), duration_s=0.1)
            self.tell("job-events", end)

    def episode(self) -> DriftOpened:
        here = Position(topic="labels", partition=0, offset=self.taken[1], ts=0.0)
        told = {"before_mean": 0.0, "after_mean": 1.0, "effect": 3.0, "change_point": here, "detected_at": here}
        return drift_opened(NEEDED, "demo", "e", span=RowRange(partition=0, start_offset=0, labels_start_offset=0), **told)

    def out(self, kind: str, event: object) -> Outgoing:
        return Outgoing(self.settings.topic(kind), *encode_event(event, time.time()))

    def tell(self, kind: str, event: object) -> None:
        self.sender.send(self.out(kind, event))


def stage() -> Stage:
    random = np.random.default_rng(1)
    features = random.normal(size=(ROWS, 2)).astype(np.float32)
    labels = ((features[:, 0] > 0) != (np.arange(ROWS) >= CHANGE)).astype(np.int64)
    table = Table(("a", "b"), features, labels, ("no", "yes"))
    settings, transport = Settings(), MemoryTransport()
    service, serving = Service(transport, settings), Serving(transport, settings)
    log = ClientLog(settings, transport, ("demo", table))
    return Stage(table, settings, transport, service, serving, log, Story(transport, settings, "demo"))


def test_traffic_waits_for_the_repair_and_then_uses_it() -> None:
    played = stage()
    rows: list[int] = []
    score = Player(PlayConfig(chunk_rows=20, label_delay=50, lead_rows=60), played, FIRST, rows.append).play()
    assert rows == list(range(FIRST + 20, ROWS + 1, 20))
    assert [version for _, version in score.swaps] == [1, 2]
    swap = score.swaps[1][0]
    assert CHANGE + NEEDED <= swap <= CHANGE + NEEDED + 50 + 60 + 20
    assert score.adapted[: CHANGE - FIRST].all()
    assert not score.adapted[CHANGE - FIRST : swap - FIRST].any()
    assert score.adapted[swap - FIRST :].all()
    assert score.frozen.mean() == pytest.approx((CHANGE - FIRST) / (ROWS - FIRST))
    assert max(played.service.predictions_at_job[5:]) == swap - FIRST
    assert played.service.taken == [ROWS - FIRST, ROWS - FIRST]


def test_records_are_in_row_order_and_labels_follow_after_their_delay() -> None:
    played = stage()
    Player(PlayConfig(chunk_rows=25, label_delay=75), played, FIRST, lambda row: None).play()
    reader = played.transport.reader([played.settings.topic(kind) for kind in ("predictions", "labels")])
    found = {"predictions": [], "labels": []}
    for record in reader.poll(10_000, 0.0):
        kind = record.topic.removeprefix(played.settings.topics.prefix)
        event = decode(record.value, PredictionMade if kind == "predictions" else LabelArrived, kind)
        assert event.model == "demo"
        found[kind].append(int(event.prediction_id))
    assert found["predictions"] == found["labels"] == list(range(FIRST, ROWS))


def test_a_rate_is_kept_and_never_waits_for_a_repair() -> None:
    played = stage()
    begun = time.monotonic()
    score = Player(PlayConfig(chunk_rows=20, label_delay=50, lead_rows=60, rate=3_000.0), played, FIRST, lambda row: None).play()
    assert time.monotonic() - begun >= (ROWS - FIRST) / 3_000.0
    assert played.service.taken == [ROWS - FIRST, ROWS - FIRST]
    assert score.swaps[0] == (FIRST, 1)


def limit(player: Player) -> None:
    from driftloop.streams import player as module

    before, module.STALL_S = module.STALL_S, 0.2
    try:
        player.play()
    finally:
        module.STALL_S = before


def test_a_service_that_takes_in_nothing_is_told() -> None:
    played = stage()
    played.service.pump = lambda: False
    with pytest.raises(DriftloopError, match="take in events"):
        limit(Player(PlayConfig(), played, FIRST, lambda row: None))
