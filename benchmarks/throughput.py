"""Measures: prediction + label pairs/s from one broker in one run: a bare consumer, driftloop's data plane, quixstreams, Faust.

All read the same preloaded topics (30 numeric features, lz4, default settings), each in a process of its own on the same two CPUs, in turn,
from the first record to the last pair processed and committed; the figure is the median of the rounds.
"""

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import environments
import pending
import psutil
from traffic import CONSUME_RECORDS, FETCH, Traffic, broker, cpus_apart, environment_of, forget_state, preload, settings_of

from driftloop.settings import Settings

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 900.0
AIMS = (
    ("driftloop_json / bare", "driftloop_json", "bare", 0.5),
    ("driftloop_json / quixstreams", "driftloop_json", "quixstreams", 3.5),
    ("driftloop_json / faust", "driftloop_json", "faust", 50.0),
    ("driftloop_packed / bare", "driftloop_packed", "bare", 0.9),
    ("driftloop_json_200 / driftloop_json", "driftloop_json_200", "driftloop_json", 0.8),
)


@dataclass(frozen=True)
class Side:
    """Name one side of the comparison: its program, the topic set it reads, and the interpreter that runs it."""

    name: str
    program: str
    topics: str
    pairs: int
    python: str = sys.executable
    path: str = ""


@dataclass
class Session:
    """Hold what the sides share and what they answered."""

    bootstrap: str
    prefix: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def settings(self, topics: str, group: str) -> Settings:
        return settings_of(self.bootstrap, f"{self.prefix}{topics}.", group)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sides(pairs: int, faust_pairs: int, problems: dict[str, str]) -> list[Side]:
    """Return the sides that can run here, the reason of each other one in `problems`."""
    found = [
        Side("driftloop_json", "own_plane.py", "json1", pairs),
        Side("driftloop_packed", "own_plane.py", "packed1", pairs),
        Side("driftloop_json_200", "own_plane.py", "json200", pairs),
    ]
    try:
        path = environments.orjson_path()
        found.insert(0, Side("bare", "peer_bare.py", "json1", pairs, path=path))
        found.append(Side("faust", "peer_faust.py", "few", faust_pairs, path=path))
    except environments.Unavailable as problem:
        problems |= {"bare": str(problem), "faust": str(problem)}
    try:
        found.append(Side("quixstreams", "peer_quixstreams.py", "json1", pairs, python=environments.quixstreams_python()))
    except environments.Unavailable as problem:
        problems["quixstreams"] = str(problem)
    return found


def run_side(session: Session, side: Side) -> None:
    """Run one side once and keep its rate, or the reason why there is none."""
    settings = session.settings(side.topics, f"{side.name}-{secrets.token_hex(4)}")
    order = {
        "bootstrap": session.bootstrap,
        "group": settings.monitor_group,
        "pairs": side.pairs,
        "fetch": FETCH,
        "consume_records": CONSUME_RECORDS,
        **{kind: settings.topic(kind) for kind in ("predictions", "labels", "drift")},
    }
    if side.program == "own_plane.py":
        forget_state(settings)
    environment = environment_of(settings)
    if side.path:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [side.path, environment.get("PYTHONPATH")]))
    command = [side.python, str(HERE / side.program), json.dumps(order)]
    try:
        done = subprocess.run(
            command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        session.problems[side.name] = f"ran longer than {TIMEOUT_S:.0f} s"
    except (ValueError, IndexError):
        session.problems[side.name] = f"exit code {done.returncode}: " + "\n".join(done.stderr.strip().splitlines()[-12:])
    else:
        if done.returncode != 0 or answer["pairs"] != side.pairs:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            session.problems[side.name] = f"{answer['pairs']} of {side.pairs} pairs, exit code {done.returncode}: {last}"
        rate = answer["pairs"] / answer["seconds"]
        session.rates.setdefault(side.name, []).append(rate)
        say(f"  {side.name:20} {rate:>10,.0f} pairs/s")


def load(session: Session, traffic: Traffic, faust_pairs: int) -> dict[str, float]:
    """Fill the topic sets and return the bytes of a pair in each."""
    sets = {"json1": traffic, "packed1": replace(traffic, packed=True), "json200": replace(traffic, models=200)}
    # Faust would read far ahead in one topic of a long set: its short run needs a set that ends.
    sets["few"] = replace(traffic, pairs=faust_pairs)
    sizes = {}
    for topics, wanted in sets.items():
        sizes[topics] = round(preload(session.settings(topics, "loader"), wanted), 1)
        say(f"loaded {wanted.pairs:,} pairs, {wanted.models} model(s), {sizes[topics]:.0f} bytes a pair ({topics})")
    return sizes


def facts() -> dict[str, Any]:
    """Return what the machine is."""
    names = [line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []


def versions() -> dict[str, dict[str, str]]:
    """Return the versions of what ran."""
    ours = environments.versions(sys.executable, ["confluent-kafka", "faust-streaming", "river", "msgspec", "numpy", "orjson"])
    try:
        peer = environments.versions(environments.quixstreams_python(), ["quixstreams", "confluent-kafka", "river", "orjson"])
    except environments.Unavailable:
        peer = {}
    return {"driftloop": ours, "quixstreams": peer}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything and return the one object that --json prints."""
    machine, (for_broker, for_clients) = facts(), cpus_apart()
    traffic = Traffic(arguments.pairs, scores=arguments.scores)
    with broker(arguments.bootstrap, for_broker) as bootstrap:
        session = Session(bootstrap, f"benchmark-{secrets.token_hex(3)}.")
        entrants = sides(arguments.pairs, arguments.faust_pairs, session.problems)
        sizes = load(session, traffic, arguments.faust_pairs)
        os.sched_setaffinity(0, for_clients)
        for number in range(1, arguments.rounds + 1):
            say(f"round {number} of {arguments.rounds}")
            for side in entrants:
                if arguments.only is None or side.name in arguments.only:
                    run_side(session, side)
        waiting = {} if arguments.no_pending else waiting_figures(session, arguments.pending)
    medians = {name: round(statistics.median(rates), 1) for name, rates in session.rates.items()}
    order = ("bare", "driftloop_json", "driftloop_packed", "quixstreams", "faust", "driftloop_json_200")
    result: dict[str, Any] = {name: medians.get(name) for name in order}
    result |= {"pending_bytes": waiting.get("pending_bytes"), "restart_s": waiting.get("restart_s")}
    result["ratios"] = {
        label: round(medians[above] / medians[below], 3) for label, above, below, _ in AIMS if above in medians and below in medians
    }
    result["rounds"] = {name: [round(rate, 1) for rate in rates] for name, rates in session.rates.items()}
    result |= {"problems": session.problems, "versions": versions(), "machine": machine}
    result["traffic"] = {"pairs": arguments.pairs, "scores": arguments.scores, "bytes_per_pair": sizes, "pending": waiting}
    return result


def waiting_figures(session: Session, predictions: int) -> dict[str, Any]:
    """Return bytes a pending prediction and seconds to first progress after a restart, {} with the reason in `problems`."""
    try:
        return pending.measure(session.bootstrap, f"{session.prefix}pending.", predictions)
    except Exception as problem:
        session.problems["pending"] = f"{type(problem).__name__}: {problem}"
        return {}


def show(result: dict[str, Any]) -> None:
    """Print the figures for people."""
    for name in ("bare", "driftloop_json", "driftloop_packed", "driftloop_json_200", "quixstreams", "faust"):
        value = result[name]
        print(f"{name:36} {'null' if value is None else f'{value:,.0f}':>12} pairs/s")
    for label, _, _, aim in AIMS:
        if label in result["ratios"]:
            print(f"{label:36} {result['ratios'][label]:>12.2f} (aim >= {aim:g})")
    for name, unit, aim in (("pending_bytes", "bytes", 200), ("restart_s", "s", 10)):
        value = result[name]
        print(f"{name:36} {'null' if value is None else f'{value:,.1f}':>12} {unit} (aim <= {aim})")
    for name, reason in result["problems"].items():
        print(f"no figure for {name}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faust-pairs", type=int, default=6_000, help="Faust is so slow that a few thousand pairs are enough")
    parser.add_argument("--pending", type=int, default=1_000_000, help="pending predictions for pending_bytes and restart_s")
    parser.add_argument("--no-pending", action="store_true", help="leave pending_bytes and restart_s out")
    parser.add_argument("--scores", action="store_true", help="predictions carry two class scores")
    parser.add_argument("--only", nargs="+", metavar="SIDE", help="run only these sides")
    parser.add_argument("--bootstrap", help="an existing cluster instead of a local broker; its topics are left there")
    arguments = parser.parse_args()
    result = measure(arguments)
    print(json.dumps(result)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
