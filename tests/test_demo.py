"""The demo's parts: its made stream, its counts, its report and picture, its service's settings; and the whole of it in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.cli_demo import summary_lines
from driftloop.schemas.config import TopicsConfig
from driftloop.schemas.errors import DriftloopError, InputInvalid
from driftloop.settings import Settings, load_settings
from driftloop.streams.demo_data import demo_table, made_table, train_rows
from driftloop.streams.demo_service import service_process, to_toml
from driftloop.streams.demo_tally import Counted, Sent, balance
from driftloop.streams.plot import binned
from driftloop.streams.table_columns import Wanted
from driftloop.tests.demo_table import table_file

REPORT_KEYS = ["events", "drift", "jobs", "models", "accuracy", "accuracy_by_1000", "timing", "transport"]


def test_the_made_stream_turns_and_returns() -> None:
    table = made_table(3_000, (1_000, 2_000))
    assert (len(table), table.classes, table.features.dtype) == (3_000, (0, 1, 2), np.float32)
    again = made_table(3_000, (1_000, 2_000))
    assert np.array_equal(table.features, again.features)
    centres = [table.features[start : start + 1_000].mean(axis=0) for start in (0, 1_000, 2_000)]
    assert np.abs(centres[0] - centres[1]).max() > 5 * np.abs(centres[0] - centres[2]).max()


@pytest.mark.parametrize(("wanted", "rows", "found"), [(None, 25_000, 10_000), (None, 5_000, 2_000), (300, 5_000, 300)])
def test_train_rows(wanted: int | None, rows: int, found: int) -> None:
    assert train_rows(wanted, rows, 100) == found


def test_a_table_without_rows_to_play_is_refused() -> None:
    with pytest.raises(DriftloopError, match="rows to train on and to play"):
        train_rows(4_950, 5_000, 100)


def test_a_label_that_is_a_number_is_a_regression(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,y", *(f"{row % 5},{row / 7}" for row in range(300))]))
    table = demo_table(str(path), Wanted("y"))
    assert (table.task, table.classes, table.labels.dtype) == ("regression", (), np.float64)
    assert table.label(7) == 1.0
    assert table.notes == ("regression is assumed: labels have fractions (--task classification says otherwise)",)
    with pytest.raises(InputInvalid, match=r"2 to 100 classes, got 300 .*--task regression"):
        demo_table(str(path), Wanted("y"), "classification")
    path.write_text("a,y\n1,2.5\n2,2.5\n")
    with pytest.raises(InputInvalid, match=r"must vary, got 2\.5"):
        demo_table(str(path), Wanted("y"))


@pytest.mark.parametrize(
    ("counted", "lost", "duplicated"),
    [
        (Counted(100, 100, 100, {"predictions": 0, "labels": 0}), 0, 0),
        (Counted(99, 100, 99, {"predictions": 0, "labels": 1}), 1, 0),
        (Counted(100, 98, 98, {"predictions": 0, "labels": 0}), 2, 0),
        (Counted(100, 100, 97, {"predictions": 0, "labels": 0}), 3, 0),
        (Counted(100, 100, 98, {"predictions": 2, "labels": 2}), 0, 0),
        (Counted(101, 100, 101, {"predictions": 0, "labels": 0}), 0, 2),
    ],
)
def test_what_is_lost_or_doubled_is_counted(counted: Counted, lost: int, duplicated: int) -> None:
    found = balance(Sent(100, 100), counted)
    assert (found.lost, found.duplicated) == (lost, duplicated)
    assert balance(Sent(100, 100, 5), counted).duplicated == duplicated + 5


def test_bins_lie_on_multiples_of_their_size() -> None:
    rows, accuracy = binned(np.array([True] * 300 + [False] * 500 + [True] * 50), 700, 500)
    assert rows == [700, 1_000, 1_500]
    assert accuracy == [1.0, 0.0, 1.0]
    assert binned(np.ones(1_000, np.bool_), 1_000, 500)[0] == [1_000, 1_500]


def test_settings_reach_the_service_whole(tmp_path: Path) -> None:
    kafka = {"bootstrap.servers": "a:1,b:2", "sasl.password": 'p"\\\n\x7fé😀'}
    recipes = {"mine": {"arms": {"a": [{"type": "quantize"}]}, "gate": {"max_loss": 0.1}}, "int8": {"exits": []}}
    settings = Settings(kafka=kafka, topics=TopicsConfig(prefix="demo-1.", partitions=3), recipes=recipes)
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(settings), "utf-8")
    assert load_settings(file, {}) == settings


def test_a_service_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    nowhere = Settings(kafka={"bootstrap.servers": "127.0.0.1:1", "no.such.property": "1"})
    with service_process(nowhere, tmp_path / "service.log") as service:
        service._process.wait(30)
        with pytest.raises(DriftloopError, match=r"exit code \d"):
            service.pump()
    assert service._process.returncode is not None


def check_report(report: dict) -> None:
    """Check what every demo on `table_file` must show."""
    assert list(report) == REPORT_KEYS
    played = 4_200 - 1_200
    events = report["events"]
    assert events == {"predictions": played, "labels": played, "joined": played, "dead_lettered": 0, "lost": 0, "duplicated": 0}
    error = next(found for found in report["drift"] if found["signal"] == "error")
    assert error["direction"] == "worse"
    assert 2_300 <= error["change_row"] <= 2_500
    assert 2_400 <= error["detected_row"] <= 2_600
    assert report["jobs"][0]["outcome"] == "promoted"
    assert report["models"][0]["promoted_at_row"] == 1_200
    assert 2_600 < report["models"][1]["promoted_at_row"] < 3_200
    assert report["accuracy"]["before_drift"] > 0.9
    assert report["accuracy"]["frozen_after"] < 0.2
    assert report["accuracy"]["adapted_after"] > report["accuracy"]["frozen_after"] + 0.4
    assert report["accuracy_by_1000"]["rows"] == [1_200, 2_000, 3_000, 4_000]
    assert report["accuracy_by_1000"]["adapted"][-1] > 0.9
    assert report["timing"]["drift_to_publish_s"] > 0


def test_a_picture_that_cannot_be_written_is_told_before_the_demo(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "file" / "accuracy.png"):
        (tmp_path / "file").write_text("")
        done = CliRunner().invoke(cli.app, ["demo", "--memory", "--plot", str(place)])
        assert (done.exit_code, done.stderr.startswith("driftloop: picture must be")) == (2, True), done.output


@pytest.mark.slow
def test_the_whole_demo_in_memory(tmp_path: Path) -> None:
    plot = tmp_path / "demo" / "accuracy.png"
    arguments = [
        "demo",
        "--data",
        str(table_file(tmp_path)),
        "--label",
        "y",
        "--train-rows",
        "1200",
        "--plot",
        str(plot),
        "--memory",
    ]
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["transport"] == "memory"
    check_report(report)
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert dict(summary_lines(report, plot))["lost / duplicated / dead letters"] == "0 / 0 / 0"


@pytest.mark.slow
def test_the_whole_demo_of_a_regression_in_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    features = random.normal(size=(2_600, 3))
    price = 3 + features[:, 0] * np.where(np.arange(2_600) < 1_500, 1.5, -1.5) + random.normal(0, 0.1, 2_600)
    cells = [[f"{value:.4f}" for value in row] for row in features]
    cells[900][2], cells[1_700][2] = "inf", "1e39"
    table, plot = tmp_path / "prices.csv", tmp_path / "demo" / "error.png"
    table.write_text("\n".join(["id,a,b,c,price", *(f"{9 + row},{','.join(cells[row])},{price[row]:.4f}" for row in range(2_600))]))
    arguments = ["--data", str(table), "--label", "price", "--train-rows", "800", "--plot", str(plot), "--memory"]
    done = CliRunner().invoke(cli.app, ["demo", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert "regression is assumed: labels have fractions" in done.stderr
    assert "no features, since they rise or fall with every row as an index, an id or a time does: id" in done.stderr
    assert "2 cells are infinite or beyond float32 and taken as missing, the first: 'inf'" in done.stderr
    assert "line 902, column c" in done.stderr
    report = json.loads(done.stdout)
    assert report["events"]["joined"] == 1_800
    assert report["events"]["lost"] == report["events"]["dead_lettered"] == 0
    assert report["mae"]["before_drift"] < 0.5 < report["mae"]["frozen_after"]
    assert any(found["signal"] == "error" and found["direction"] == "worse" for found in report["drift"])
    assert [name for name in report if name.startswith("mae")] == ["mae", "mae_by_1000"]
    assert dict(summary_lines(report, plot))["absolute error before the drift"] == f"{report['mae']['before_drift']:.4g}"
