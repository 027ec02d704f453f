"""Some thousand fuzzed records through one Monitor, in short; `benchmarks/fuzz_records.py` runs a million."""

import json

import pytest

from driftloop.benchmarks.fuzz_records import fuzz
from driftloop.benchmarks.fuzzed_records import Fuzz

COUNT = 9_000


def test_a_record_follows_from_the_seed() -> None:
    first, again, other = ([fuzz.next(at, 10**12) for at in range(300)] for fuzz in (Fuzz(3), Fuzz(3), Fuzz(4)))
    assert first == again
    assert len({record.value for record in first + other}) > 450


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_raises_is_lost_or_is_felt_by_good_models(seed: int) -> None:
    told = fuzz(COUNT, seed)
    assert not told["problems"], json.dumps(told, indent=2)
    assert told["fuzzed"] == COUNT
    assert told["good_drift_events"] >= 1
    assert told["sure_dead_letters"] > COUNT / 20
    assert {what.partition(" ")[2] for what in told["dead_letters"]} >= {
        "malformed",
        "invalid",
        "non_finite",
        "future",
        "over_limit",
    }
    assert told["counters"]["admitted"] > COUNT / 4
