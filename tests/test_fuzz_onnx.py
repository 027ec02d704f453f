"""Some hundred mutated model files through the trial; `benchmarks/fuzz_onnx.py` runs a hundred thousand."""

import json

from driftloop.benchmarks.fuzz_onnx import RSS_BYTES, fuzz
from driftloop.benchmarks.mutated_onnx import base_files, mutated
from driftloop.compression.adoption import adopt
from driftloop.compression.trial import try_model
from driftloop.schemas.config import ModelsConfig


def test_the_graphs_that_mutations_begin_with_are_sound() -> None:
    for data in base_files():
        assert try_model(adopt(data).onnx).outputs[0].finite


def test_a_file_follows_from_seed_and_number() -> None:
    assert mutated(5, 3) == mutated(5, 3)
    assert len({mutated(5, number) for number in range(50)}) > 40


def test_mutated_files_are_taken_or_refused_and_nothing_else() -> None:
    told = fuzz(400, 7, ModelsConfig())
    assert told["uncaught"] == 0, json.dumps(told)
    assert told["taken"] + told["refused"] + told["quarantined"] == 400  # type: ignore[operator]
    # The child says itself what it had: the most of all children of this process may be that of another test's.
    assert 10_000_000 < int(str(told["child_rss_bytes"])) <= RSS_BYTES
    assert min(told["taken"], told["refused"]) > 20  # type: ignore[type-var]
