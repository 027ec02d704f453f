"""The demo on a real broker: the service as a process of its own, nothing lost, the champion swapped while traffic goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from driftloop.settings import Settings
from driftloop.streams.topics import admin_client, partition_counts


def table_file(folder: Path) -> Path:
    """Write 4,200 rows whose classes turn round at row 2,400."""
    random = np.random.default_rng(4)
    features = random.normal(size=(4_200, 3))
    labels = ((features[:, 0] + features[:, 1] > 0) != (np.arange(4_200) >= 2_400)).astype(int)
    path = folder / "table.csv"
    path.write_text(
        "\n".join(["a,b,c,y", *(f"{a:.4f},{b:.4f},{c:.4f},{y}" for (a, b, c), y in zip(features, labels, strict=True))])
    )
    return path


@pytest.mark.kafka
def test_the_whole_demo(settings: Settings, tmp_path: Path) -> None:
    arguments = ["demo", "--data", str(table_file(tmp_path)), "--label", "y", "--train-rows", "1200", "--json"]
    environment = os.environ | {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "driftloop", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["transport"] == "kafka"
    assert report["events"] == {
        "predictions": 3_000,
        "labels": 3_000,
        "joined": 3_000,
        "dead_lettered": 0,
        "lost": 0,
        "duplicated": 0,
    }
    error = next(found for found in report["drift"] if found["signal"] == "error")
    assert (error["direction"], 2_300 <= error["change_row"] <= 2_500, 2_400 <= error["detected_row"] <= 2_600) == (
        "worse",
        True,
        True,
    )
    assert report["jobs"][0]["outcome"] == "promoted"
    assert report["accuracy_by_1000"]["adapted"][-1] > 0.9
    assert report["accuracy_by_1000"]["frozen"][-1] < 0.2
    assert (tmp_path / "driftloop-demo" / "accuracy.png").exists()
    left = [name for name in partition_counts(settings, admin_client(settings)) if name.startswith("demo-")]
    assert left == [], "the demo takes its topics with it"
