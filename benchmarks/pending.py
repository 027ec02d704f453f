"""Measures: bytes of memory per pending prediction, and seconds from a restart of the data plane to first progress with 1,000,000 pending.

Memory is the growth of the resident set of a process that holds one Monitor, all else released; beside it the bytes of the arrays alone.
The restart is a new process on the same group: from its start to the first records it processed that came after the stop.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
from traffic import CHUNK_ROWS, Traffic, broker, cpus_apart, environment_of, fill, preload, settings_of

from driftloop.detectors.monitor import Monitor
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.records import Batch
from driftloop.settings import Settings

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 300.0


def memory(predictions: int) -> dict[str, float]:
    """Return bytes per pending prediction in this process; call it in one that has done nothing else."""
    traffic = Traffic(predictions, packed=True, scores=True)
    monitor = Monitor(MonitorConfig(), "driftloop.", 0)
    warm = replace(traffic, pairs=CHUNK_ROWS, seed=1)
    _feed(monitor, warm, 0)
    held_before, before = monitor.pending, _resident()
    _feed(monitor, traffic, CHUNK_ROWS)
    monitor.take_dirty()
    after, held = _resident(), monitor.pending - held_before
    if held != predictions:
        raise RuntimeError(f"all predictions must be pending, got {held:,} of {predictions:,}")
    return {
        "pending": float(monitor.pending),
        "resident_bytes": round((after - before) / held, 1),
        "array_bytes": round(monitor.buffer.size_bytes / monitor.pending, 1),
    }


def _feed(monitor: Monitor, traffic: Traffic, offset: int) -> None:
    start_ms = traffic.start_ms() + offset
    for predictions, _ in traffic.chunks(start_ms):
        batch = Batch()
        for key, _, value, at_ms in predictions:
            batch.predictions.keys.append(key)
            batch.predictions.values.append(value)
            batch.predictions.offsets.append(offset)
            batch.predictions.timestamps_ms.append(at_ms)
            offset += 1
        monitor.process(batch)


def _resident() -> int:
    gc.collect()
    # Freed pages that the allocator keeps are not what a prediction costs.
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def restart(bootstrap: str, prefix: str, predictions: int) -> dict[str, float]:
    """Fill a data plane with pending predictions, kill it, and return the seconds until a new one has made progress.

    What comes after the stop is labels of predictions from before it: that they join shows that nothing was forgotten.
    """
    settings = settings_of(bootstrap, prefix, "pending")
    traffic = Traffic(predictions, packed=True, scores=True)
    preload(settings, traffic, ("predictions",))
    filled = _plane(settings, predictions)
    fill(settings, replace(traffic, pairs=CHUNK_ROWS), ("labels",))
    first = _plane(settings, CHUNK_ROWS)
    if first["pairs"] != CHUNK_ROWS:
        raise RuntimeError(f"all labels must find their predictions after a restart, got {first['pairs']:.0f} of {CHUNK_ROWS}")
    return {"fill_s": filled["committed_s"], "restart_s": first["progress_s"], "restored_s": first["restored_s"]}


def _plane(settings: Settings, records: int) -> dict[str, float]:
    """Run a data plane until it has committed so many records, kill it, and return when it made its first and last progress."""
    command = [sys.executable, str(HERE / "own_plane.py"), json.dumps({"records": records, "kill": True})]
    started = time.time()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, env=environment_of(settings), cwd=HERE.parent, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            out, _ = child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise
        if not out.strip():
            errors.seek(0)
            raise RuntimeError("the data plane must make progress, got: " + errors.read()[-1500:])
    answer = json.loads(out.strip().splitlines()[-1])
    return {
        "progress_s": round(answer["progress_at"] - started, 3),
        "committed_s": round(answer["committed_at"] - started, 3),
        "restored_s": round(answer["restored_s"], 3),
        "pairs": float(answer["pairs"]),
    }


def memory_apart(predictions: int) -> dict[str, float]:
    """Return `memory` as a fresh process measures it."""
    command = [sys.executable, str(HERE / "pending.py"), "--memory-only", "--predictions", str(predictions), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-1500:])
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def measure(bootstrap: str, prefix: str, predictions: int) -> dict[str, float]:
    """Return both figures, as `pending_bytes` and `restart_s`, and what is behind them."""
    held = memory_apart(predictions)
    return {"pending_bytes": held["resident_bytes"], **held, **restart(bootstrap, prefix, predictions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--memory-only", action="store_true", help="no broker: only the bytes of a pending prediction")
    parser.add_argument("--bootstrap", help="an existing cluster instead of a local broker; its topics are left there")
    arguments = parser.parse_args()
    if arguments.memory_only:
        result = memory(arguments.predictions)
    else:
        with broker(arguments.bootstrap, cpus_apart()[0]) as bootstrap:
            result = measure(bootstrap, f"pending-{os.getpid()}.", arguments.predictions)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:20} {value:>14,.1f}")


if __name__ == "__main__":
    main()
