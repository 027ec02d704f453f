"""Fuzzed events of the control topics over the memory transport: whatever they hold, no fold raises and good models are served as ever.

`python benchmarks/fuzz_control.py 20000 --seed 1`. Control loop, registry, watcher, job and alert views, newest change and plain objects
take them; each reader starts over now and then. What the control plane asks for good models must be what it asks without the rest.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, get_args

import msgspec

from driftloop.benchmarks.odd_values import altered, encoded, mangled, odd_value
from driftloop.schemas import events
from driftloop.schemas.cloudevents import encode_event
from driftloop.schemas.errors import NotFound
from driftloop.schemas.records import Record
from driftloop.schemas.topics import KINDS
from driftloop.schemas.verdicts import GateVerdict
from driftloop.settings import Settings
from driftloop.streams.alert_view import read_alerts
from driftloop.streams.control_loop import ControlLoop
from driftloop.streams.job_states import JobStates
from driftloop.streams.job_view import JobView
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.newest_change import newest_change
from driftloop.streams.registry import read_registry
from driftloop.streams.transport import Outgoing
from driftloop.streams.watcher import ModelWatcher
from driftloop.streams.watching import plain, read_events

TOPICS = ("drift", "jobs", "job-events", "alerts", "models")
GOOD = "good"
GOOD_EVERY = 20
STEP_EVERY = 100
BEGIN_ANEW_EVERY = 1_000
ROWS = events.RowRange(partition=0, start_offset=5, labels_start_offset=5)
SETTINGS = Settings()


def made(kind: Any, **said: Any) -> Any:
    """Return an event or a part of one with the fields said, and the rest as plain as their types allow."""
    found = dict(said)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in found:
            found[field.name] = _plain_value(field.name, field.type)
    return kind(**found)


def _plain_value(name: str, kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return made(kind)
    if name in ("reason", "direction", "severity", "cause", "outcome", "requested_by", "task", "detector") and get_args(kind):
        return get_args(kind)[0]
    plain_ones: dict[Any, Any] = {str: name, int: 1, float: 0.5, bool: True}
    return plain_ones.get(kind, {} if "dict" in str(kind) else ())


def good_events(turn: int) -> list[tuple[str, events.Event]]:
    """Return the events of a good model's turn: an episode, as it grows, ends, and its jobs end."""
    name, model = f"e{turn}", f"{GOOD}-{turn % 3}"
    said = {"model": model, "episode_id": name, "signal": "error", "direction": "worse", "severity": "high", "rows": ROWS}
    return [
        ("drift", made(events.DriftOpened, **said, labelled_rows=20)),
        ("drift", made(events.DriftUpdated, **said, labelled_rows=400)),
        ("job-events", made(events.JobFinished, model=model, job_id=f"{name}-300", outcome="rejected")),
        ("drift", made(events.DriftUpdated, **said, labelled_rows=2_500)),
        ("job-events", made(events.JobFailed, model=model, job_id=f"{name}-2000", cause="error")),
        ("drift", made(events.DriftClosed, model=model, episode_id=name, signal="error", reason="recovered")),
    ]


def templates() -> list[tuple[str, dict[str, Any]]]:
    """Return a sound event of every type of the control topics, with its topic."""
    kinds = [(topic, kind) for topic in TOPICS for kind in get_args(KINDS[topic].carries)]
    return [
        (topic, msgspec.to_builtins(made(kind, model="odd", rows=ROWS) if _has_rows(kind) else made(kind))) for topic, kind in kinds
    ]


def _has_rows(kind: Any) -> bool:
    return "rows" in kind.__struct_fields__ and kind is not GateVerdict


class Empty:
    """A store without artifacts."""

    def get(self, digest: str) -> bytes:
        """Raise NotFound."""
        raise NotFound(f"artifact must be in the store ({digest})")


class World:
    """The readers of the control topics of one run, and what raised in them."""

    def __init__(self) -> None:
        self.transport = MemoryTransport(clock=lambda: 1_700_000_000.0)
        self.problems: list[str] = []
        self.slowest_s = 0.0
        self._begin()

    def _begin(self) -> None:
        # A start reads all there is.
        self._loop = ControlLoop(SETTINGS, self.transport)
        self._view = JobView(SETTINGS, self.transport)
        self._watchers = [ModelWatcher(name, settings=SETTINGS, transport=self.transport, store=Empty()) for name in ("odd", GOOD)]

    def begin_anew(self) -> None:
        """Start every reader from the beginning, as after a crash."""
        self._try(self._begin)

    def step(self) -> None:
        """Have everybody take in what there is."""
        for _ in range(3):
            self._try(self._loop.step)
        self._try(self._view.refresh)
        for watcher in self._watchers:
            self._try(watcher.poll)

    def look(self) -> None:
        """Read whole topics, as commands do."""
        for model in ("odd", f"{GOOD}-0"):
            self._try(lambda model=model: newest_change(self.transport, SETTINGS, model, 0))
        self._try(lambda: read_alerts(self.transport, SETTINGS))
        self._try(self._jobs)
        self._try(self._registry)

    def record(self, topic: str, record: Record) -> None:
        """Show a record to a person."""
        self._try(lambda: msgspec.json.encode(plain(record, topic)))

    def asked(self) -> list[bytes]:
        """Return what good models were asked for and what was told of them, in order."""
        found = []
        for topic in ("jobs", "alerts"):
            records = self.transport.reader([SETTINGS.topic(topic)]).poll(10**9, 0.0)
            found += [record.value or b"" for record in records if (record.key or b"").startswith(GOOD.encode())]
        return found

    def _jobs(self) -> None:
        jobs = JobStates()
        for topic in ("jobs", "job-events"):
            for record, event in read_events(self.transport, [SETTINGS.topic(topic)], KINDS[topic].carries):
                msgspec.json.encode(jobs.take(event, record.timestamp_ms / 1000))

    def _registry(self) -> None:
        registry = read_registry(self.transport, SETTINGS)
        for model in registry.models:
            registry.champion(model), registry.previous_champion(model), registry.versions(model)
            registry.next_version(model), registry.history(model)

    def _try(self, call: Callable[[], object]) -> None:
        began_s = time.thread_time()
        try:
            call()
        except Exception:
            self.problems.append(traceback.format_exc())
        self.slowest_s = max(self.slowest_s, time.thread_time() - began_s)


def run(count: int, seed: int, *, with_fuzz: bool) -> World:
    """Return the world after `count` fuzzed events, or after the good ones among them alone."""
    world, rng, known = World(), Random(seed), templates()
    sender = world.transport.sender()
    pending: list[tuple[str, events.Event]] = []
    for number in range(count):
        if number % GOOD_EVERY == 0:
            pending = pending or good_events(number // (GOOD_EVERY * 6))
            topic, event = pending.pop(0)
            sender.send(Outgoing(SETTINGS.topic(topic), *encode_event(event, 0.0)))
        if with_fuzz:
            topic, key, value = fuzzed(rng, known)
            sender.send(Outgoing(SETTINGS.topic(topic), key, value))
            world.record(topic, Record(topic=topic, partition=0, offset=number, timestamp_ms=0, key=key, value=value))
        if number % STEP_EVERY == 0:
            world.step()
        if number % BEGIN_ANEW_EVERY == BEGIN_ANEW_EVERY - 1:
            world.look()
            world.begin_anew()
    world.step()
    world.look()
    return world


def fuzzed(rng: Random, known: list[tuple[str, dict[str, Any]]]) -> tuple[str, bytes, bytes]:
    """Return topic, key and value of a fuzzed record."""
    topic, tree = rng.choice(known)
    name = f"odd-{rng.randrange(5)}" if rng.random() < 0.8 else "odd"
    tree = {**tree, "model": name}
    if "job_id" in tree and rng.random() < 0.5:
        tree["job_id"] = rng.choice(("e1-300", "e1-", "-", "-٣", "e1-" + "9" * rng.choice((3, 19, 5_000)), "x" * 300))
    if "episode_id" in tree and rng.random() < 0.7:
        tree["episode_id"] = rng.choice(("e1", "e2", "e" * 256, "e" * 700_000 if rng.random() < 0.01 else "e3"))
    if "version" in tree and rng.random() < 0.5:
        tree["version"] = rng.choice((1, 2, 2**31 - 1))
    if "labelled_rows" in tree and rng.random() < 0.7:
        tree["labelled_rows"] = rng.choice((0, 300, 2_000, -5, 2**63 - 1, 2**70))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        changed = altered(tree, rng)
        tree = changed if isinstance(changed, dict) and not str(changed.get("model", "")).startswith(GOOD) else tree
    value = encoded(tree if rng.random() < 0.97 else odd_value(rng), rng)
    if rng.random() < 0.15:
        value = mangled(value, rng)
    if rng.random() < 0.1:
        # An event of one topic on another.
        topic = rng.choice(TOPICS)
    return topic, rng.choice((name.encode(), name.encode(), b"", b"\xff")), value


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Return the figures of `count` fuzzed events."""
    clean, found = (run(count, seed, with_fuzz=with_fuzz) for with_fuzz in (False, True))
    problems = clean.problems + found.problems
    if found.asked() != clean.asked():
        problems.append(f"good models must be asked {len(clean.asked())} records, got {len(found.asked())}")
    return {
        "fuzzed": count,
        "seed": seed,
        "problems": len(problems),
        "slowest_call_s": round(found.slowest_s, 3),
        "asked_of_good_models": len(clean.asked()),
        "first_problems": problems[:5],
    }


def main() -> int:
    """Fuzz as the arguments say, print one JSON object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    told = fuzz(arguments.count, arguments.seed)
    print(json.dumps(told, indent=2))
    return 1 if told["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
