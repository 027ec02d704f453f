"""The demo: train, publish, serve, drift, repair, recover, on one machine and over the best transport there is."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..schemas.errors import DriftloopError, InputInvalid
from ..schemas.events import Task
from ..settings import Settings
from .broker import BrokerConfig, LocalBroker
from .broker_libs import prerequisites
from .client_settings import shown_address
from .demo_data import demo_table, train_rows
from .demo_progress import PlayProgress
from .demo_report import MEASURES, Outcome, drift_rows, report
from .demo_service import SteppedService, memory_service, service_process
from .demo_serving import ClientLog, WatchedServing, publish_first, train_first
from .demo_story import Story
from .demo_tally import Sent, saved_counters, tally
from .kafka import KafkaTransport
from .labelled_table import Table
from .memory import MemoryTransport
from .player import PlayConfig, Player, Score, Service, Stage
from .plot import Picture, draw
from .table_columns import Wanted
from .topics import delete_topics, ensure_topics
from .transport import Transport

LAST_READ_S = 0.5
NO_TORCH = (
    "torch must be installed to train the demo's model and to repair it, got none; get the CPU build: "
    'pip install "driftloop[worker]" --extra-index-url https://download.pytorch.org/whl/cpu'
)


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What the demo plays and how; log and models go beside the picture. `memory` keeps it off any broker."""

    data: str | None = None
    columns: Wanted | None = None
    task: Task | None = None
    train_rows: int | None = None
    label_delay: int = 100
    rate: float | None = None
    plot: Path = Path("driftloop-demo/accuracy.png")
    memory: bool = False


def run_demo(settings: Settings, config: DemoConfig, console: Console) -> dict[str, Any]:
    """Play the demo and return its report; the picture is drawn too. Raises DriftloopError where a part of it fails."""
    begun = time.monotonic()
    _need_torch()
    _check_place(config.plot)
    table = demo_table(config.data, config.columns, config.task)
    for note in table.notes:
        console.print(note, markup=False)
    first_row = train_rows(config.train_rows, len(table), config.label_delay)
    with _ground(settings, config, console) as (own, transport):
        console.print(f"training a model on {first_row} rows of {len(table)}, {_kind(table)}")
        play = PlayConfig(label_delay=config.label_delay, rate=config.rate)
        publish_first(own, transport, train_first(table, first_row, play.model))
        story, score, counters = _play(own, transport, play, (table, first_row, config, console))
        story.read(LAST_READ_S)
        sent = Sent(len(score.adapted), len(score.adapted), story.duplicates())
        counted = tally(own, transport, sent, saved_counters(own, transport) if counters is None else counters)
        story.close()
    outcome = Outcome(story, score, counted, transport.name, time.monotonic() - begun, MEASURES[table.task])
    draw(_picture(outcome, config), config.plot)
    return report(outcome)


def _play(
    settings: Settings, transport: Transport, play: PlayConfig, what: tuple[Table, int, DemoConfig, Console]
) -> tuple[Story, Score, dict[str, int] | None]:
    """Return the story, the score, and the monitor's counters where it ran in this process."""
    table, first_row, config, console = what
    with ExitStack() as stack:
        service: Service
        if isinstance(transport, MemoryTransport):
            service = stack.enter_context(memory_service(settings, transport))
        else:
            service = stack.enter_context(service_process(settings, config.plot.parent / "service.log"))
        serving = stack.enter_context(WatchedServing(settings, transport, play.model))
        log = stack.enter_context(ClientLog(settings, transport, (play.model, table)))
        story = Story(transport, settings, play.model)
        progress = stack.enter_context(PlayProgress(console, story, (first_row, len(table))))
        stage = Stage(table, settings, transport, service, serving, log, story)
        score = Player(play, stage, first_row, progress).play()
        return story, score, service.counters() if isinstance(service, SteppedService) else None


@contextmanager
def _ground(settings: Settings, config: DemoConfig, console: Console) -> Iterator[tuple[Settings, Transport]]:
    """Give settings of the demo's own and a transport; topics and a broker made for the demo go with the block."""
    own = _own_settings(settings, config)
    with ExitStack() as stack:
        if config.memory:
            yield own, MemoryTransport(own.topics.partitions)
            return
        if not settings.names_a_broker:
            address = _local_broker(stack, console)
            if address is None:
                yield own, MemoryTransport(own.topics.partitions)
                return
            own = own.model_copy(update={"kafka": {**own.kafka, "bootstrap.servers": address}})
        console.print(f"broker {shown_address(own)}, topics {own.topics.prefix}*")
        ensure_topics(own)
        stack.callback(delete_topics, own)
        yield own, KafkaTransport(own)


def _local_broker(stack: ExitStack, console: Console) -> str | None:
    running = LocalBroker().status()
    if running is not None:
        return running.bootstrap_servers
    missing = prerequisites()
    if missing:
        console.print("no broker can be started here, the demo plays in memory: " + "; ".join(missing))
        return None
    console.print("starting a local broker")
    folder = Path(tempfile.mkdtemp(prefix="driftloop-broker-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    broker = LocalBroker(BrokerConfig(data_dir=folder, tied=True))
    stack.callback(broker.stop)
    return broker.start().bootstrap_servers


def _own_settings(settings: Settings, config: DemoConfig) -> Settings:
    """Return the settings with topics and a store that no other run has; all else is the user's."""
    prefix = f"demo-{secrets.token_hex(4)}."
    return settings.model_copy(
        update={
            "topics": settings.topics.model_copy(update={"prefix": prefix}),
            "store": settings.store.model_copy(update={"url": str(config.plot.parent.absolute() / "models")}),
        }
    )


def _kind(table: Table) -> str:
    return f"{len(table.classes)} classes" if table.classes else "a regression"


def _check_place(plot: Path) -> None:
    """Raise InputInvalid where the picture could not be written, before everything is played for it."""
    try:
        plot.parent.mkdir(parents=True, exist_ok=True)
        was_there = plot.exists()
        plot.open("ab").close()
        if not was_there:
            plot.unlink()
    except OSError as problem:
        raise InputInvalid(
            f"picture must be a file that can be written, got {problem.strerror} ({plot}); --plot names another"
        ) from None


def _need_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise DriftloopError(NO_TORCH)


def _picture(outcome: Outcome, config: DemoConfig) -> Picture:
    score = outcome.score
    changes = [found["change_row"] for found in drift_rows(outcome) if found["signal"] == "error"]
    title = "made stream" if config.data is None else Path(config.data).name
    return Picture(
        score.first_row, score.frozen, score.adapted, changes, score.swaps[1:], f"driftloop demo: {title}", outcome.measure
    )
