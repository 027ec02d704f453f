"""A flood in short: what the benchmark shows of a million names holds of thousands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def test_a_flood_costs_what_the_bounds_say_and_good_models_notice_nothing() -> None:
    sizes = ["--names", "12000", "--versions", "2000", "--ids", "10000"]
    done = subprocess.run(
        [sys.executable, "benchmarks/flood.py", "--json", *sizes], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["good_events_equal"]
    assert found["good_drift_events"] >= 1
    assert found["models_held"] <= 5_000
    assert found["versions_held"] <= 5_000 + 8
    assert found["counters"]["dead_lettered_over_limit"] > 5_000
    assert found["rss_peak_mb"] - found["rss_before_mb"] < 300
    assert 1 <= found["notices"] <= 6
