"""The benchmark of repairs in short: a reversed concept and a number, learnt by the whole recipe and by each arm alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_repairs_are_measured_beside_each_arm_and_training_on_all_rows() -> None:
    pytest.importorskip("torch")
    sizes = ["--seeds", "1", "--labels", "300", "--rows", "3000", "--kinds", "reversed_concept", "regression"]
    nowhere = str(ROOT / "no-such-python")
    done = subprocess.run(
        [sys.executable, "benchmarks/repair.py", "--json", *sizes, "--lightgbm", nowhere],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    turned, number = found["cases"]
    assert (turned["kind"], turned["champion"], turned["labels"]) == ("reversed_concept", "net", 300)
    assert 0.8 < turned["ceiling"] < 0.95
    assert turned["frozen"] < 0.3
    assert turned["repair"] > 0.85
    assert {"affine", "finetune", "scratch"} <= set(turned["arms"])
    assert {"recall", "refit"}.isdisjoint(turned["arms"]), "no earlier version, no trees"
    assert turned["best"] == max(turned["arms"], key=turned["arms"].__getitem__)
    assert turned["behind"] <= 10
    assert number["frozen"] < number["repair"] <= 1.1
    assert [one["aim"] for one in found["summary"]] == [0.93]
    assert list(found["problems"]) == ["lightgbm"]
    assert "no-such-python must run" in found["problems"]["lightgbm"]
