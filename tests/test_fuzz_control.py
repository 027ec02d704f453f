"""Some thousand fuzzed control events, in short; `benchmarks/fuzz_control.py` runs more."""

import json

from driftloop.benchmarks.fuzz_control import fuzz, templates


def test_the_events_that_mutations_begin_with_are_of_every_type() -> None:
    assert len({tree["type"] for _, tree in templates()}) == 16


def test_no_event_raises_out_of_a_fold_and_good_models_are_served() -> None:
    told = fuzz(3_000, 5)
    assert not told["problems"], json.dumps(told, indent=2)
    assert told["asked_of_good_models"] > 20
