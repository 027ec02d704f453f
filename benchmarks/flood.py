"""Measures: memory and time of one Monitor under a flood of model names, versions and ids that nobody knows, beside good models.

The good models' events must be those of a run without the flood, byte for byte, and memory must stay within what the settings say.
Of the flood nothing is kept but what the monitor keeps.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from msgspec import structs

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import encode_json
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import Event, MetricsComputed
from driftloop.schemas.records import Batch, Slice

START_MS = 1_700_000_000_000
GOOD_MODELS = 4
BATCH_RECORDS = 10_000
GOOD_SHARE = 0.02
FIRST_ROWS = 2_000
TURN_AT = 0.5
DIRTY_EVERY = 20
OWN = [b"good-%d" % at for at in range(GOOD_MODELS)]


@dataclass
class Flood:
    """How many names, versions and ids there are."""

    names: int
    versions: int
    ids: int

    @property
    def records(self) -> int:
        """Return the number of records of the flood."""
        return self.names + self.versions + self.ids


@dataclass
class Run:
    """What a run gave: the good models' events, CPU seconds of all batches and of the slowest one, counters, lines for the log."""

    events: list[bytes] = field(default_factory=list)
    total_s: float = 0.0
    slowest_s: float = 0.0
    state_bytes: int = 0
    notices: int = 0


class Log:
    """Good traffic and the flood between it, in batches; the same good records at the same offsets with and without it."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self._random = Random(1)
        kinds = ["names"] * flood.names + ["versions"] * flood.versions + ["ids"] * flood.ids
        self._random.shuffle(kinds)
        self._kinds = kinds
        self.good_rows = FIRST_ROWS * GOOD_MODELS + max(20_000, round(flood.records * GOOD_SHARE))

    def batches(self, *, with_flood: bool) -> Iterator[Batch]:
        """Yield batches."""
        random, offset, sent = Random(2), 0, 0
        first = FIRST_ROWS * GOOD_MODELS
        per_row = len(self._kinds) / (self.good_rows - first)
        batch = Batch()
        for row in range(self.good_rows):
            offset = self._good(batch, random, row, offset)
            until = round(max(0, row + 1 - first) * per_row)
            for at in range(sent, until):
                offset += 1
                if with_flood:
                    self._bad(batch, self._kinds[at], at, offset)
                if len(batch) >= BATCH_RECORDS:
                    yield batch
                    batch = Batch()
            sent = until
        yield batch

    def _good(self, batch: Batch, random: Random, row: int, offset: int) -> int:
        key = OWN[row % GOOD_MODELS]
        x = random.gauss(0, 1)
        turned = row > TURN_AT * self.good_rows and row % GOOD_MODELS == 0
        output = int(x > 0)
        label = output if (random.random() < 0.9) != turned else 1 - output
        said = {"model": key.decode(), "prediction_id": f"g{row}"}
        _add(batch.predictions, key, said | {"version": 1, "output": output, "features": {"x": x, "y": 0.5}}, offset + 1)
        _add(batch.labels, key, said | {"label": label}, offset + 2)
        return offset + 2

    def _bad(self, batch: Batch, kind: str, at: int, offset: int) -> None:
        if kind == "ids":
            _add(batch.labels, OWN[1], {"model": OWN[1].decode(), "prediction_id": f"nobody-{at}", "label": 1}, offset)
            return
        name, version = (f"name-{at}", 1) if kind == "names" else ("flooded", at + 1)
        value = {"model": name, "version": version, "prediction_id": f"b{at}", "output": 1, "features": {"x": 1.0}}
        _add(batch.predictions, name.encode(), value, offset)


def _add(into: Slice, key: bytes, value: dict[str, Any], offset: int) -> None:
    into.values.append(json.dumps(value).encode())
    into.keys.append(key)
    into.offsets.append(offset)
    into.timestamps_ms.append(START_MS + offset // 10)


def rss_mb(name: str = "VmRSS") -> int:
    """Return a figure of this process's memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


def run(monitor: Monitor, batches: Iterator[Batch]) -> Run:
    """Return what a monitor makes of batches, taking its changed state as a commit does."""
    made, names = Run(), {key.decode() for key in OWN}
    for number, batch in enumerate(batches):
        began_s = time.process_time()
        effects = monitor.process(batch)
        if number % DIRTY_EVERY == 0:
            made.state_bytes += sum(len(part or b"") for part in monitor.take_dirty().values())
        took_s = time.process_time() - began_s
        made.total_s, made.slowest_s = made.total_s + took_s, max(made.slowest_s, took_s)
        made.notices += len(effects.notices)
        made.events += [encode_json(_plain(event)) for event in effects.events if event.model in names]
    return made


def _plain(event: Event) -> Event:
    # The unknown ids name a good model, which counts them.
    return structs.replace(event, counts={}) if isinstance(event, MetricsComputed) else event


def measure(flood: Flood) -> dict[str, Any]:
    """Return the figures of a flood."""
    log, config = Log(flood), MonitorConfig()
    clean = run(Monitor(config, "driftloop.", 0), log.batches(with_flood=False))
    gc.collect()
    before_mb = rss_mb()
    monitor = Monitor(config, "driftloop.", 0)
    flooded = run(monitor, log.batches(with_flood=True))
    gc.collect()
    counters = {name: count for name, count in sorted(monitor.counters.items()) if count}
    return {
        "records": flood.records + 2 * log.good_rows,
        "us_per_record": round(flooded.total_s / (flood.records + 2 * log.good_rows) * 1e6, 1),
        "cpu_total_s": round(flooded.total_s, 1),
        "cpu_slowest_batch_s": round(flooded.slowest_s, 3),
        "rss_before_mb": before_mb,
        "rss_after_mb": rss_mb(),
        "rss_peak_mb": rss_mb("VmHWM"),
        "state_mb": flooded.state_bytes // 1024**2,
        "models_held": len(monitor.table.slots),
        "versions_held": sum(len(one.versions) for one in monitor.watch.roster.models.values()),
        "early_labels_held": len(monitor.early),
        "notices": flooded.notices,
        "good_events": len(clean.events),
        "good_drift_events": sum(b"drift_opened" in event for event in clean.events),
        "good_events_equal": flooded.events == clean.events,
        "counters": counters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=100_000)
    parser.add_argument("--ids", type=int, default=1_000_000)
    arguments = parser.parse_args()
    found = measure(Flood(arguments.names, arguments.versions, arguments.ids))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
