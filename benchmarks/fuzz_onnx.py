"""Mutated model files through the trial that every foreign model takes: how many are taken, refused, crash their child, hang, or get by.

`python benchmarks/fuzz_onnx.py 100000 --seed 1`. Each file follows from seed and number alone. One limited child tries file after file;
one that ends or holds it goes through the product's own door (`streams/model_trial.py`), which must refuse it with a reason. Exit code 1
where anything but a refusal came out, or the parent or a child grew beyond 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from driftloop.benchmarks.mutated_onnx import mutated
from driftloop.schemas.config import ModelsConfig
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.streams.child_process import ChildProcess, Limits
from driftloop.streams.model_trial import adopted, trial_memory

MODULE = "driftloop.benchmarks.fuzz_onnx"
BATCH = 2_000
FILE_S = 20.0
POLL_S = 0.05
RSS_BYTES = 1_000_000_000
STATE = "state.json"
NOTHING = {"done": 0, "taken": 0, "refused": 0, "uncaught": 0, "rss_bytes": 0}


def fuzz(count: int, seed: int, config: ModelsConfig) -> dict[str, object]:
    """Try `count` files and return what became of them."""
    began = time.monotonic()
    totals: Counter[str] = Counter()
    lines: list[str] = []
    at = child_rss = 0
    while at < count:
        done, state, said = _batch(seed, at, min(BATCH, count - at), config)
        totals.update({name: state[name] for name in ("taken", "refused", "uncaught")})
        child_rss = max(child_rss, state["rss_bytes"])
        lines += said
        at += done
        if done < min(BATCH, count - at + done):
            totals[_alone(mutated(seed, at), config, lines)] += 1
            at += 1
        sys.stderr.write(f"\r{at} of {count}: {dict(totals)}")
    return {
        "files": count,
        "seed": seed,
        **{name: totals[name] for name in ("taken", "refused", "quarantined", "uncaught")},
        "rss_bytes": peak_rss_bytes(),
        "child_rss_bytes": child_rss,
        "seconds": round(time.monotonic() - began, 1),
        "examples": lines[:20],
    }


def _batch(seed: int, start: int, count: int, config: ModelsConfig) -> tuple[int, dict[str, int], list[str]]:
    """Return how many files a child got through, its counts and what it printed; the file after them ended or held it."""
    with tempfile.TemporaryDirectory(prefix="driftloop-fuzz-") as name:
        folder = Path(name)
        limits = Limits(timeout_s=3600.0, memory_bytes=trial_memory(0, config), file_bytes=1_000_000)
        child = ChildProcess(MODULE, ["--child", str(seed), str(start), str(count)], folder, limits)
        lines: list[str] = []
        state, moved_at = _state(folder), time.monotonic()
        try:
            while (ended := child.wait(POLL_S)) is None:
                now = _state(folder)
                if now["done"] != state["done"]:
                    state, moved_at = now, time.monotonic()
                elif time.monotonic() - moved_at > FILE_S + (0.0 if state["done"] else FILE_S):
                    break
        finally:
            child.stop()
        lines += [line.decode("utf-8", "replace").strip() for line in child.take_lines()]
        if ended is not None and ended.reason != "ok":
            lines.append(f"a child ended: {ended.reason} {ended.code} {ended.tail[-200:]!r}")
        state = _state(folder)
        return state["done"], state, lines


def _state(folder: Path) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return NOTHING
    return found


def peak_rss_bytes() -> int:
    """Return the most memory that this process had since it began its program, which a child's `ru_maxrss` does not say."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _alone(data: bytes, config: ModelsConfig, lines: list[str]) -> str:
    """Return what the product makes of a file that ended or held the child."""
    try:
        adopted(data, config)
    except ArtifactInvalid as problem:
        lines.append(f"alone: {problem}")
        return "quarantined"
    except Exception as problem:
        lines.append(f"alone: {type(problem).__name__}: {problem}")
        return "uncaught"
    return "taken"


def child(seed: int, start: int, count: int) -> None:
    """Try file after file, and write after each how far this got."""
    from driftloop.compression.adoption import adopt
    from driftloop.compression.trial import try_model

    totals = dict(NOTHING)
    handle = os.open(STATE, os.O_CREAT | os.O_WRONLY)
    for number in range(start, start + count):
        try:
            try_model(adopt(mutated(seed, number)).onnx)
            what = "taken"
        except ArtifactInvalid as problem:
            what = "refused"
            if not str(problem).isprintable():
                what = "uncaught"
                print(number, "not printable:", ascii(str(problem))[:300], flush=True)
        except MemoryError:
            raise
        except Exception as problem:
            what = "uncaught"
            print(number, type(problem).__name__, ascii(str(problem))[:300], flush=True)
        totals[what] += 1
        totals["done"] += 1
        totals["rss_bytes"] = peak_rss_bytes()
        os.pwrite(handle, json.dumps(totals).ljust(120).encode(), 0)


def main() -> int:
    """Fuzz as the arguments say, print one JSON object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    told = fuzz(chosen.count, chosen.seed, ModelsConfig(trial_timeout_s=FILE_S))
    print(json.dumps(told, indent=2))
    most = max(int(str(told[who])) for who in ("rss_bytes", "child_rss_bytes"))
    return 0 if not told["uncaught"] and most <= RSS_BYTES else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*map(int, sys.argv[2:5]))
    else:
        sys.exit(main())
