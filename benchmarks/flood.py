"""Measures: memory, time and the delay of good models' alerts of one Monitor under a flood of model names, versions and unknown ids.

The good models' events must be those of a run without the flood, byte for byte, and memory must stay within what the settings say.
Of the flood nothing is kept but what the monitor keeps.

Any record may tip an alert: its delay is the time from its own to the return of the call that took it, on a clock that the process's
CPU seconds move. Records come at RATE a second; a call takes what has come meanwhile, as the data plane does, and a commit takes the
changed state every second. So the delay holds the wait for the call before, and does not hold what other processes of the machine do.
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

import numpy as np
from msgspec import structs

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import encode_json
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import Event, MetricsComputed
from driftloop.schemas.records import Batch, Slice

START_MS = 1_700_000_000_000
GOOD_MODELS = 4
BATCH_RECORDS = 10_000
RATE = 10_000
# The data plane waits so long for more records.
TICK_RECORDS = RATE // 50
COMMIT_S = 1.0
SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
GOOD_SHARE = 0.02
FIRST_ROWS = 2_000
TURN_AT = 0.5
OWN = [b"good-%d" % at for at in range(GOOD_MODELS)]
NAMES = {key.decode() for key in OWN}


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
    """What a run gave: the good models' events and delays, CPU seconds of all batches and of the slowest one, lines for the log."""

    events: list[bytes] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    total_s: float = 0.0
    slowest_s: float = 0.0
    state_bytes: int = 0
    notices: int = 0


class Log:
    """Good traffic and the flood between it, tick by tick; the same good records at the same offsets with and without it."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self._random = Random(1)
        kinds = ["names"] * flood.names + ["versions"] * flood.versions + ["ids"] * flood.ids
        self._random.shuffle(kinds)
        self._kinds = kinds
        self.good_rows = FIRST_ROWS * GOOD_MODELS + max(20_000, round(flood.records * GOOD_SHARE))

    def ticks(self, *, with_flood: bool) -> Iterator[tuple[int, Batch]]:
        """Yield the number of a tick, and what comes in it."""
        random, offset, sent = Random(2), 0, 0
        first = FIRST_ROWS * GOOD_MODELS
        per_row = len(self._kinds) / (self.good_rows - first)
        batch, tick = Batch(), 0
        for row in range(self.good_rows):
            if offset // TICK_RECORDS > tick:
                yield tick, batch
                batch, tick = Batch(), offset // TICK_RECORDS
            offset = self._good(batch, random, row, offset)
            until = round(max(0, row + 1 - first) * per_row)
            for at in range(sent, until):
                offset += 1
                if with_flood:
                    self._bad(batch, self._kinds[at], at, offset)
            sent = until
        yield tick, batch

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


class Plane:
    """The data plane in short: a monitor, the clock of its work, and what has come meanwhile."""

    def __init__(self, config: MonitorConfig, counted_from: int) -> None:
        self.monitor = Monitor(config, "driftloop.", 0)
        self.made = Run()
        self._counted_from = counted_from
        self._free_s = 0.0
        self._committed_s = 0.0

    def run(self, ticks: Iterator[tuple[int, Batch]]) -> Run:
        """Return what the monitor makes of all ticks."""
        waiting, start_s = Batch(), 0.0
        for tick, batch in ticks:
            end_s = (tick + 1) * TICK_RECORDS / RATE
            if len(waiting) and (start_s < end_s or len(waiting) + len(batch) > BATCH_RECORDS):
                self._take(waiting, start_s)
                waiting = Batch()
            if not len(waiting):
                start_s = max(self._free_s, end_s)
            _extend(waiting, batch)
        self._take(waiting, start_s)
        return self.made

    def _take(self, batch: Batch, start_s: float) -> None:
        made, began_s = self.made, time.process_time()
        # As the data plane, which lets Python collect between the calls.
        gc.disable()
        effects = self.monitor.process(batch)
        gc.enable()
        good = [event for event in effects.events if event.model in NAMES]
        told_s = start_s + time.process_time() - began_s
        made.state_bytes += _bytes(self.monitor.take_new())
        if start_s - self._committed_s >= COMMIT_S:
            self._committed_s = start_s
            made.state_bytes += _bytes(self.monitor.take_dirty())
        took_s = time.process_time() - began_s
        self._free_s = start_s + took_s
        made.total_s, made.slowest_s = made.total_s + took_s, max(made.slowest_s, took_s)
        made.notices += len(effects.notices)
        made.events += [encode_json(_plain(event)) for event in good]
        for kind in (batch.predictions, batch.labels):
            mine = [offset for offset, key in zip(kind.offsets, kind.keys, strict=True) if key in OWN]
            made.delays_s += [told_s - offset / RATE for offset in mine if offset >= self._counted_from]


def _bytes(parts: dict[str, bytes | None]) -> int:
    return sum(len(part or b"") for part in parts.values())


def _extend(batch: Batch, more: Batch) -> None:
    for into, part in ((batch.predictions, more.predictions), (batch.labels, more.labels)):
        for column in ("values", "keys", "offsets", "timestamps_ms"):
            getattr(into, column).extend(getattr(part, column))


def percentile_ms(delays_s: list[float], share: float) -> float:
    """Return the delay in ms that a share of the records does not exceed."""
    return round(float(np.quantile(delays_s, share)) * 1000, 1)


def _plain(event: Event) -> Event:
    # The unknown ids name a good model, which counts them.
    return structs.replace(event, counts={}) if isinstance(event, MetricsComputed) else event


def measure(flood: Flood) -> dict[str, Any]:
    """Return the figures of a flood."""
    log, config = Log(flood), MonitorConfig()
    begin = 2 * FIRST_ROWS * GOOD_MODELS
    clean = Plane(config, begin).run(log.ticks(with_flood=False))
    gc.collect()
    before_mb = rss_mb()
    plane = Plane(config, begin)
    flooded, monitor = plane.run(log.ticks(with_flood=True)), plane.monitor
    gc.collect()
    delays = {f"alert_{what}_ms": [percentile_ms(one.delays_s, share) for one in (clean, flooded)] for what, share in SHARES}
    counters = {name: count for name, count in sorted(monitor.counters.items()) if count}
    return {
        "records": flood.records + 2 * log.good_rows,
        "us_per_record": round(flooded.total_s / (flood.records + 2 * log.good_rows) * 1e6, 1),
        "cpu_total_s": round(flooded.total_s, 1),
        "cpu_slowest_batch_s": round(flooded.slowest_s, 3),
        **delays,
        "alert_p99_ratio": round(delays["alert_p99_ms"][1] / delays["alert_p99_ms"][0], 2),
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
