"""Measures: microseconds that `Client.log_prediction` takes from its caller, p50 and p99, with the broker up and with it down.

30 numeric features as a dict. `steady` leaves the sender's thread time between calls, as a serving process does; `burst` calls without a
pause.
"""

import argparse
import json
import logging
import socket
import time
from typing import Any

import numpy as np
from traffic import Traffic, broker, cpus_apart, settings_of

from driftloop.streams.client import Client, ClientConfig
from driftloop.streams.topics import ensure_topics

WARM_CALLS = 500
PAUSE_S = 0.0005


def calls_us(client: Client, calls: int, pause_s: float) -> list[float]:
    """Return the duration of each call in microseconds."""
    random, names = np.random.default_rng(3), Traffic(1).names
    rows = [dict(zip(names, row, strict=True)) for row in random.normal(size=(256, len(names))).tolist()]
    taken = []
    for number in range(WARM_CALLS + calls):
        features = rows[number % len(rows)]
        started = time.perf_counter_ns()
        client.log_prediction("model-000", output=1, version=1, features=features)
        taken.append((time.perf_counter_ns() - started) / 1000)
        if pause_s:
            time.sleep(pause_s)
    return taken[WARM_CALLS:]


def case(bootstrap: str, prefix: str, form: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return percentiles of both paces, and what became of the events."""
    found: dict[str, Any] = {}
    for pace, calls, pause_s in (("steady", arguments.calls, PAUSE_S), ("burst", arguments.burst, 0.0)):
        config = ClientConfig(format=form, max_queued=arguments.burst * 2, exit_flush_s=0.5)  # type: ignore[arg-type]
        client = Client(settings=settings_of(bootstrap, prefix), config=config)
        taken = calls_us(client, calls, pause_s)
        p50, p99 = np.percentile(taken, [50, 99])
        found[pace] = {"p50_us": round(p50, 1), "p99_us": round(p99, 1), "max_us": round(max(taken), 1)}
        client.flush(0.5)
        client.close(0.5)
        found[pace] |= client.counters._asdict()
    return found


def closed_port() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--calls", type=int, default=5_000, help="calls at a steady pace")
    parser.add_argument("--burst", type=int, default=50_000, help="calls without a pause")
    parser.add_argument("--bootstrap", help="an existing cluster instead of a local broker; its topics are left there")
    arguments = parser.parse_args()
    # The clients say that events are lost while the broker is away: that is the point here.
    logging.getLogger("driftloop").setLevel(logging.CRITICAL)
    result: dict[str, Any] = {}
    prefix = f"client-{time.time_ns() // 1_000_000}."
    with broker(arguments.bootstrap, cpus_apart()[0]) as bootstrap:
        ensure_topics(settings_of(bootstrap, prefix))
        for form in ("packed", "json"):
            result[f"{form}_up"] = case(bootstrap, prefix, form, arguments)
    for form in ("packed", "json"):
        result[f"{form}_down"] = case(closed_port(), prefix, form, arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, paces in result.items():
        for pace, figures in paces.items():
            told = "  ".join(f"{key} {value:,}" for key, value in figures.items())
            print(f"{name:12} {pace:7} {told}")


if __name__ == "__main__":
    main()
