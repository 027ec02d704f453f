"""Fuzzed records through one Monitor, cut at random, its state saved and restored: what is raised, lost, slow, or felt by others.

`python benchmarks/fuzz_records.py 1000000 --seed 1`. The good models' events must be those of a run without the rest, each record that is
refused a dead letter. Where a batch raises or takes over a second, its records are taken singly from the last saved state and the first
such record is printed. In the last twentieth record times jump ahead too; good records are compared up to there.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from msgspec import structs

from driftloop.benchmarks.fuzzed_records import GOOD, Fuzz
from driftloop.detectors.effects import Effects
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.snapshot import unpack_parts
from driftloop.schemas.codecs import PackedLabel, PackedPrediction, encode_json, encode_msgpack, pack_features
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.dead_letters import DISPOSITIONS
from driftloop.schemas.events import Event, MetricsComputed
from driftloop.schemas.records import Batch, Record, Slice

START_MS = 1_700_000_000_000
STEP_MS = 5
FIRST_PLACES = 3_000
GOOD_EVERY = 15
LABEL_AFTER = 20
TURN_ROWS = 3_000
WILD_SHARE = 0.05
AHEAD_MS = (1_000, 400_000, 10**9, 31_536_000_000, 10**15, 2**62)
SLOW_S = 1.0
RSS_MB = 1_000
PART_BYTES = 900_000
SIZES = (1, 3, 30, 300, 1_500)
SMALL = {"warm_up_rows": 50, "error_block_rows": 8, "input_block_rows": 8, "metrics_every_rows": 50, "milestones": (50,)}
TIGHT = {"max_models": 200, "max_total_features": 3_000, "early_label_s": 60.0, "join_window_s": 600.0, "max_pending": 20_000}


def config_of(seed: int) -> MonitorConfig:
    """Return the settings of a seed: the defaults for even ones, early decisions and tight bounds for odd ones."""
    return MonitorConfig(**SMALL, **TIGHT) if seed % 2 else MonitorConfig()  # type: ignore[arg-type]


@dataclass
class Run:
    """What a run gave."""

    good_events: list[bytes] = field(default_factory=list)
    letters: Counter[str] = field(default_factory=Counter)
    lettered: set[int] = field(default_factory=set)
    counters: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    restores: int = 0
    records: int = 0


def log_of(seed: int, count: int, fuzz: Fuzz | None) -> Iterator[Record]:
    """Yield the good records in their places, and between them `count` fuzzed ones if there is a fuzz."""
    good, rng, sent, place = Good(seed, fuzz), Random(seed + 1), 0, 0
    while sent < count:
        place += 1
        now_ms = START_MS + place * STEP_MS
        if place < FIRST_PLACES or place % GOOD_EVERY == 0:
            yield from good.records(place, now_ms)
            continue
        sent += 1
        if fuzz is None:
            continue
        record = fuzz.next(place * 4, now_ms)
        if place > wild_from(count) and rng.random() < 0.001:
            record = structs.replace(record, timestamp_ms=min(2**63 - 1, now_ms + rng.choice(AHEAD_MS)))
        yield record


def wild_from(count: int) -> int:
    """Return the place after which times jump ahead too."""
    return FIRST_PLACES + int(count * (1 - WILD_SHARE) * GOOD_EVERY / (GOOD_EVERY - 1))


class Good:
    """The good models' records, row by row: of three models, one packed, one registered, one whose labels turn again and again."""

    def __init__(self, seed: int, fuzz: Fuzz | None) -> None:
        self._rng = Random(seed)
        self._fuzz = fuzz
        self._outputs: list[int] = []

    def records(self, place: int, now_ms: int) -> Iterator[Record]:
        """Yield a prediction and the label of an earlier one, and in the beginning what registers the last model."""
        row, rng = len(self._outputs), self._rng
        name = GOOD[row % len(GOOD)]
        if row == 0:
            signature = {"task": "classification", "features": list("abcd"), "classes": [0, 1]}
            event = {"type": "model_registered", "model": GOOD[2], "version": 1, "digest": "d", "uri": "u", "size_bytes": 1}
            yield _record("models", place * 4 + 3, now_ms, GOOD[2], json.dumps(event | {"signature": signature}).encode())
        values = [round(rng.gauss(0, 1), 6) for _ in "abcd"]
        self._outputs.append(int(values[0] > 0))
        yield _record("predictions", place * 4 + 1, now_ms, name, self._prediction(name, values, now_ms / 1000))
        earlier = row - LABEL_AFTER * len(GOOD)
        if earlier >= 0:
            turned = name == GOOD[0] and earlier // TURN_ROWS % 2 == 1
            label = self._outputs[earlier] ^ ((rng.random() < 0.1) != turned)
            yield _record("labels", place * 4 + 2, now_ms, name, encode_msgpack(PackedLabel(name, f"{name}-{earlier}", label)))
            if self._fuzz is not None:
                self._fuzz.good_joined(name, f"{name}-{earlier}")

    def _prediction(self, name: str, values: list[float], ts: float) -> bytes:
        score, output, ident = round(self._rng.random(), 6), self._outputs[-1], f"{name}-{len(self._outputs) - 1}"
        scores = [1 - score, score]
        if name == GOOD[1]:
            return encode_msgpack(PackedPrediction(name, 1, ident, ts, output, pack_features([*values]), "a\nb\nc\nd", scores))
        tree = {"model": name, "version": 1, "prediction_id": ident, "ts": ts, "output": output, "scores": scores}
        return json.dumps(tree | {"features": dict(zip("abcd", values, strict=True))}).encode()


def _record(topic: str, offset: int, now_ms: int, key: str, value: bytes) -> Record:
    return Record(topic=topic, partition=0, offset=offset, timestamp_ms=now_ms, key=key.encode(), value=value)


def batch_of(records: list[Record]) -> Batch:
    """Return records as one batch."""
    slices = {}
    for kind in ("models", "predictions", "labels"):
        mine = [one for one in records if one.topic == kind]
        columns = [[getattr(one, name) for one in mine] for name in ("value", "key", "offset", "timestamp_ms")]
        slices[kind] = Slice(*columns, headers=lambda at, mine=mine: mine[at].headers)
    return Batch(**slices)


class Player:
    """One monitor, the state it saved last, and the records since."""

    def __init__(self, config: MonitorConfig, seed: int, compare_until: int) -> None:
        self.run = Run()
        self.monitor = Monitor(config, "driftloop.", 0)
        self._config = config
        self._rng = Random(seed + 2)
        self._until = compare_until
        self._parts: dict[str, bytes] = {}
        self._ahead: dict[str, bytes | None] = {}
        self._since: list[Record] = []

    def play(self, log: Iterator[Record]) -> Run:
        """Take a log in batches of any size."""
        batch: list[Record] = []
        size = 1
        for record in log:
            if batch and batch[-1].offset < self._until <= record.offset:
                size = 1
                if not self._take(batch):
                    return self.run
                batch = []
            batch.append(record)
            if len(batch) >= size:
                if not self._take(batch):
                    return self.run
                batch, size = [], self._rng.randint(1, self._rng.choice(SIZES))
        self._take(batch)
        return self.run

    def _take(self, records: list[Record]) -> bool:
        self._since += records
        began_s = time.thread_time()
        try:
            effects = self.monitor.process(batch_of(records))
            self._ahead |= self.monitor.take_new()
        except Exception:
            self.run.problems.append(f"process: {traceback.format_exc()} {self._first(None)}")
            return False
        took_s = time.thread_time() - began_s
        if took_s > SLOW_S and len(records) > 1:
            # A batch has many records: what one of them takes is seen when they are taken singly.
            took_s = self._slowest()
        if took_s > SLOW_S:
            self.run.problems.append(f"slow: {took_s:.2f} s {self._first(SLOW_S)}")
        self.run.slowest_s = max(self.run.slowest_s, took_s)
        self.run.records += len(records)
        self._note(effects)
        return len(self._since) < 4_000 or self._save()

    def _note(self, effects: Effects) -> None:
        run = self.run
        run.counters.update(effects.counters)
        run.problems += [f"notice: {notice}" for notice in effects.notices if "anew" in notice]
        for letter in effects.dead_letters:
            run.letters[f"{letter.topic.rpartition('.')[2]} {letter.disposition}"] += 1
            if letter.disposition not in DISPOSITIONS or not letter.message or letter.offset in run.lettered:
                run.problems.append(f"letter: {letter}")
            if letter.disposition == "processing_error":
                run.problems.append(f"quarantined: {letter.message} {_shown(letter)}")
            run.lettered.add(letter.offset)
            if letter.key in OWN and letter.offset % 4 and letter.offset < self._until:
                run.problems.append(f"good record refused: {letter}")
        run.good_events += [
            encode_json(_plain(event)) for event in effects.events if event.model in GOOD and self._since[-1].offset < self._until
        ]

    def _save(self) -> bool:
        """Save the state, and go on from it in a new monitor now and then."""
        try:
            ahead, self._ahead = self._ahead, {}
            for name, part in (ahead | self.monitor.take_dirty()).items():
                if part is None:
                    self._parts.pop(name, None)
                    continue
                # The state topic lies elsewhere; what of it must lie here is to weigh little.
                self._parts[name] = zlib.compress(part, 1)
                if len(part) > PART_BYTES:
                    self.run.problems.append(f"part {name} has {len(part)} bytes")
            if self._rng.random() < 0.3:
                self.run.restores += 1
                del self.monitor
                self.monitor = self._restored()
            elif self._rng.random() < 0.05:
                self._parts = {name: zlib.compress(part, 1) for name, part in unpack_parts(self.monitor.snapshot()).items()}
                del self.monitor
                self.monitor = self._restored()
        except Exception:
            self.run.problems.append(f"state: {traceback.format_exc()}")
            return False
        self._since = []
        return True

    def _restored(self) -> Monitor:
        # As after a crash: one before it holds no memory any more, though its parts point at each other.
        gc.collect()
        parts = {name: zlib.decompress(part) for name, part in self._parts.items()}
        return Monitor.restore(self._config, "driftloop.", 0, parts)

    def _first(self, slow_s: float | None) -> str:
        """Return the first record since the last saved state that raises, or is slow, when they are taken singly."""
        monitor = self._restored()
        for record in self._since:
            began_s = time.thread_time()
            try:
                monitor.process(batch_of([record]))
            except Exception as fault:
                return f"first record: {type(fault).__name__} {_shown(record)}"
            if slow_s is not None and time.thread_time() - began_s > slow_s:
                return f"first record: {_shown(record)}"
        return "no record alone does"

    def _slowest(self) -> float:
        monitor, slowest_s = self._restored(), 0.0
        for record in self._since:
            began_s = time.thread_time()
            monitor.process(batch_of([record]))
            slowest_s = max(slowest_s, time.thread_time() - began_s)
        return slowest_s


OWN = [name.encode() for name in GOOD]


def _shown(record: Any) -> str:
    value = record.value or b""
    return f"{record.topic} {record.offset} at {record.timestamp_ms} key {record.key!r} value {b64encode(value[:3_000]).decode()}"


def _plain(event: Event) -> Event:
    # What was refused or repeated under a good model's key is counted with it.
    return structs.replace(event, counts={}) if isinstance(event, MetricsComputed) else event


def rss_mb() -> int:
    """Return the most memory that this process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Return the figures of `count` fuzzed records."""
    config, fuzzed = config_of(seed), Fuzz(seed)
    until = wild_from(count) * 4
    clean = Player(config, seed + 1, until).play(log_of(seed, count, None))
    began_s = time.monotonic()
    player = Player(config, seed, until)
    found = player.play(log_of(seed, count, fuzzed))
    problems = found.problems
    refused = sum(number for what, number in found.letters.items() if what.startswith("predictions "))
    taken = found.counters["admitted"] + found.counters["duplicates"]
    if found.counters["predictions"] != taken + refused:
        problems.append(
            f"of {found.counters['predictions']} predictions {taken} must be taken or {refused} refused, the rest is lost"
        )
    missing = sorted(fuzzed.sure - found.lettered)
    if missing:
        problems.append(f"{len(missing)} records must be dead letters, the first at offset {missing[0]}")
    if found.good_events != clean.good_events:
        at = next((at for at, pair in enumerate(zip(found.good_events, clean.good_events, strict=False)) if pair[0] != pair[1]), -1)
        problems.append(f"good events differ at {at}: {found.good_events[at]!r} and {clean.good_events[at]!r}")
    return {
        "fuzzed": count,
        "records": found.records,
        "seed": seed,
        "problems": len(problems),
        "slowest_record_s": round(found.slowest_s, 3),
        "rss_peak_mb": rss_mb(),
        "restores": found.restores,
        "good_events": len(clean.good_events),
        "good_drift_events": sum(b'"drift_opened"' in event for event in clean.good_events),
        "sure_dead_letters": len(fuzzed.sure),
        "dead_letters": dict(sorted(found.letters.items())),
        "counters": {name: value for name, value in sorted(found.counters.items()) if value},
        "seconds": round(time.monotonic() - began_s, 1),
        "first_problems": problems[:5],
    }


def main() -> int:
    """Fuzz as the arguments say, print one JSON object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    told = fuzz(arguments.count, arguments.seed)
    print(json.dumps(told, indent=2))
    return 1 if told["problems"] or told["rss_peak_mb"] > RSS_MB else 0


if __name__ == "__main__":
    sys.exit(main())
