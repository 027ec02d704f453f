"""Measures: CPU microseconds per prediction + label pair of Monitor.process alone, with no broker: JSON and packed, 1 and 200 models.

The last quarter is told apart because a model's first 500 rows make its baselines: with many models that is much of a short run.
"""

import argparse
import cProfile
import gc
import json
import pstats
import statistics
import sys
import time
from dataclasses import replace
from functools import cache, partial
from typing import Any

from traffic import Traffic, Wire

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.config import DataPlaneConfig, MonitorConfig, TopicsConfig
from driftloop.schemas.partitions import partition_of
from driftloop.schemas.records import Batch, Slice

TOPICS = TopicsConfig()
place = cache(partial(partition_of, partitions=TOPICS.partitions))


def batches(traffic: Traffic, batch_records: int) -> list[list[tuple[int, Batch]]]:
    """Return, for each fetch of `batch_records` records, the partitions it touches with their batches, as the data plane cuts them."""
    offsets = {kind: [0] * TOPICS.partitions for kind in ("predictions", "labels")}
    start_ms = traffic.start_ms()
    predictions: list[Wire] = []
    labels: list[Wire] = []
    for more_predictions, more_labels in traffic.chunks(start_ms):
        predictions += more_predictions
        labels += more_labels
    cuts = []
    half = batch_records // 2
    for start in range(0, traffic.pairs + traffic.label_delay_rows, half):
        ripe = slice(max(start - traffic.label_delay_rows, 0), max(start + half - traffic.label_delay_rows, 0))
        found: dict[int, Batch] = {}
        for kind, wires in (("predictions", predictions[start : start + half]), ("labels", labels[ripe])):
            for wire in wires:
                _add(found, kind, wire, offsets[kind])
        cuts.append(sorted(found.items()))
    return cuts


def _add(found: dict[int, Batch], kind: str, wire: Wire, offsets: list[int]) -> None:
    key, _, value, at_ms = wire
    partition = place(key)
    into: Slice = getattr(found.setdefault(partition, Batch()), kind)
    into.values.append(value)
    into.keys.append(key)
    into.offsets.append(offsets[partition])
    into.timestamps_ms.append(at_ms)
    offsets[partition] += 1


def run(cuts: list[list[tuple[int, Batch]]], dirty_every: int) -> tuple[float, float, dict[str, int]]:
    """Return CPU seconds of all fetches and of the last quarter, and counters; `take_dirty` after every so many fetches, 0 for never."""
    monitors = [Monitor(MonitorConfig(), TOPICS.prefix, partition) for partition in range(TOPICS.partitions)]
    counted = 0
    gc.collect()
    gc.disable()
    started = late = time.process_time()
    for number, cut in enumerate(cuts, 1):
        for partition, batch in cut:
            monitors[partition].process(batch)
        if dirty_every and number % dirty_every == 0:
            for monitor in monitors:
                counted += sum(len(part) for part in monitor.take_dirty().values() if part is not None)
        if number == len(cuts) - len(cuts) // 4:
            late = time.process_time()
    ended = time.process_time()
    gc.enable()
    totals: dict[str, int] = {"state_bytes": counted}
    for monitor in monitors:
        for name, value in monitor.counters.items():
            totals[name] = totals.get(name, 0) + value
    return ended - started, ended - late, totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scores", action="store_true", help="predictions carry two class scores")
    parser.add_argument("--batch-records", type=int, default=DataPlaneConfig().batch_records)
    parser.add_argument(
        "--dirty-every", type=int, default=20, help="take the changed state after so many batches, as a commit does"
    )
    parser.add_argument("--only", nargs="+", metavar="CASE", help="json_1 json_200 packed_1 packed_200")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, by function")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    plain = Traffic(arguments.pairs, scores=arguments.scores)
    for packed in (False, True):
        for models in (1, 200):
            name = f"{'packed' if packed else 'json'}_{models}"
            if arguments.only is None or name in arguments.only:
                cuts = batches(replace(plain, packed=packed, models=models), arguments.batch_records)
                result[name] = _case(cuts, arguments)
                if not arguments.json:
                    figures = result[name]
                    print(
                        f"{name:12} {figures['us_per_pair']:8.2f} us a pair, {figures['late_us_per_pair']:8.2f} in the last quarter"
                    )
                    print(f"{'':12} {figures['counters']}")
    if arguments.json:
        print(json.dumps(result))


def _case(cuts: list[list[tuple[int, Batch]]], arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.profile:
        profile = cProfile.Profile()
        profile.runcall(run, cuts, arguments.dirty_every)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    answers = [run(cuts, arguments.dirty_every) for _ in range(arguments.rounds)]
    seconds, late_s = (statistics.median(answer[part] for answer in answers) for part in (0, 1))
    late_pairs = arguments.pairs * (len(cuts) // 4) / len(cuts)
    return {
        "us_per_pair": round(seconds / arguments.pairs * 1e6, 3),
        "late_us_per_pair": round(late_s / late_pairs * 1e6, 3),
        "counters": answers[-1][2],
    }


if __name__ == "__main__":
    main()
