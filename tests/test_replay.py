"""`driftloop replay`: the monitor over a file, the same bytes for every batch size, bad files named by line."""

import gzip
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import DriftloopError, NotFound
from driftloop.streams.replay import ReplayConfig, event_lines, parse_feature, replay_file
from driftloop.streams.table_columns import Wanted

ROWS = 2_400
CHANGE = 1_200


def table(folder: Path, *, packed: bool = True) -> str:
    """Write a table whose predictions are right nine times in ten, and from row CHANGE on one time in two."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, ROWS)
    wrong = random.random(ROWS) < np.where(np.arange(ROWS) < CHANGE, 0.1, 0.5)
    inputs = random.normal(size=(ROWS, 2))
    lines = ["a,b,p,y", *(f"{a:.4f},{b:.4f},{y ^ w},{y}" for (a, b), y, w in zip(inputs, labels, wrong, strict=True))]
    path = folder / ("table.csv.gz" if packed else "table.csv")
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return str(path)


LABEL_AND_PREDICTION = Wanted("y", "p")


def run(config: ReplayConfig, notes: list[str] | None = None) -> tuple[list[dict], dict]:
    told: list[dict] = []
    notes = [] if notes is None else notes
    counts, _ = replay_file(config, MonitorConfig(), told.append, notes.append)
    return told, counts.summary()


def test_a_change_is_told_with_its_rows(tmp_path: Path) -> None:
    told, summary = run(ReplayConfig(table(tmp_path), LABEL_AND_PREDICTION))
    opened = [event for event in told if event["type"] == "drift_opened" and event["signal"] == "error"]
    assert len(opened) == 1
    assert opened[0]["direction"] == "worse"
    assert CHANGE - 100 <= opened[0]["change_row"] <= CHANGE + 100
    assert CHANGE <= opened[0]["row"] <= CHANGE + 300
    assert (summary["rows"], summary["predictions"], summary["labels"]) == (ROWS, ROWS, ROWS)
    assert summary["dead_lettered"] == {}
    assert opened[0]["change_row"] in [episode["change_row"] for episode in summary["episodes"] if episode["signal"] == "error"]
    (metrics,) = summary["metrics"]
    assert (metrics["model"], metrics["version"], metrics["task"], metrics["rows"]) == ("model", 1, "classification", ROWS)
    lines = gzip.decompress(Path(table(tmp_path)).read_bytes()).decode().splitlines()[1:]
    right = [output == label for _, _, output, label in (line.split(",") for line in lines)]
    assert metrics["total"]["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("batch_size", [1, 60, 100_000])
def test_output_does_not_depend_on_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    path = table(tmp_path)
    assert run(ReplayConfig(path, LABEL_AND_PREDICTION, batch_size=batch_size)) == run(ReplayConfig(path, LABEL_AND_PREDICTION))


def test_a_table_and_its_events_give_the_same_episodes(tmp_path: Path) -> None:
    lines = []
    for row, line in enumerate(gzip.decompress(Path(table(tmp_path)).read_bytes()).decode().splitlines()[1:]):
        a, b, output, label = line.split(",")
        made = {"model": "model", "version": 1, "prediction_id": str(row), "output": int(output)}
        lines.append(json.dumps(made | {"features": {"a": float(a), "b": float(b)}}))
        lines.append(json.dumps({"model": "model", "prediction_id": str(row), "label": int(label)}))
    events = tmp_path / "events.ndjson"
    events.write_text("\n".join(lines))
    from_table, _ = run(ReplayConfig(table(tmp_path), LABEL_AND_PREDICTION))
    from_events, _ = run(ReplayConfig(str(events)))
    assert [event["episode_id"] for event in from_events] == [event["episode_id"] for event in from_table]
    assert from_events[0]["row"] // 2 == from_table[0]["row"]


def test_labels_before_their_predictions_give_the_same_bytes_for_every_batch_size(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    lines = []
    for row in range(1_200):
        made = {
            "type": "prediction_made",
            "model": "m",
            "version": 1,
            "prediction_id": str(row),
            "output": 1,
            "ts": 1.7e9 + row // 10,
        }
        label = {"type": "label_arrived", "model": "m", "prediction_id": str(row), "ts": 1.7e9 + row // 10}
        label["label"] = int(random.random() < (0.9 if row < 700 else 0.4))
        lines += [json.dumps(label), json.dumps(made)] if row % 3 else [json.dumps(made), json.dumps(label)]
    events = tmp_path / "events.ndjson"
    events.write_text("\n".join(lines))
    whole = run(ReplayConfig(str(events)))
    assert whole == run(ReplayConfig(str(events), batch_size=11)) == run(ReplayConfig(str(events), batch_size=1))
    assert whole[0]


def test_poison_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    good = [
        json.dumps({"model": "m", "version": 1, "prediction_id": str(row), "output": 1, "features": {"a": row % 5}})
        for row in range(1_000)
    ]
    clean, dirty = tmp_path / "clean.ndjson", tmp_path / "dirty.ndjson"
    clean.write_text("\n".join(good))
    dirty.write_text("\n".join([*good[:300], "no json", '{"output": 1}', '{"type": "nonsense"}', *good[300:]]))
    told, counts = run(ReplayConfig(str(clean)))
    also, with_poison = run(ReplayConfig(str(dirty)))
    assert [event["signal"] for event in also] == [event["signal"] for event in told]
    assert sum(with_poison["dead_lettered"].values()) == 3
    assert counts["dead_lettered"] == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("a,y,p\n", "at least one event"),
        ("a,a,y,p\n1,2,3,4\n", "'a' twice"),
        ("a,y,p\n1,0,0\n1,0\n", "line 3"),
        ("a,y,p\n1,0,0\n1,0,\n", "line 3"),
        ("a,y,q\n1,0,0\n", "column must be one of a, y, q, got 'p'"),
        ('a,y,p\n1,0,0\n"1,0,0\n', "line 3"),
    ],
)
def test_a_bad_table_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DriftloopError, match=message):
        run(ReplayConfig(str(path), LABEL_AND_PREDICTION))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriftloopError, match=r"--label and --prediction .*line 1"):
        run(ReplayConfig(table(tmp_path, packed=False)))
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(Path(table(tmp_path)).read_bytes()[:-200])
    with pytest.raises(DriftloopError, match="gzip"):
        run(ReplayConfig(str(broken), LABEL_AND_PREDICTION))
    with pytest.raises(NotFound, match="exist"):
        run(ReplayConfig(str(tmp_path / "nothing.csv"), LABEL_AND_PREDICTION))


def test_a_missing_feature_and_a_missing_label_are_no_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,y,p\n1.5,cat,cat\n,,dog\nnan,dog,dog\n")
    _, summary = run(ReplayConfig(str(path), LABEL_AND_PREDICTION))
    assert (summary["predictions"], summary["labels"], summary["dead_lettered"]) == (3, 2, {})


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'{"model": "m", "version": 1, "prediction_id": "1", "output": 1}\n\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line * 2)))
    assert [(line.kind, line.row, line.line) for line in event_lines(ReplayConfig("-"))] == [
        ("predictions", 0, 1),
        ("predictions", 1, 3),
    ]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("1", 1.0),
        (" 2.5 ", 2.5),
        ("1e39", 1e39),
        ("-inf", -math.inf),
        ("9" * 5000, math.inf),
        ("nan", None),
        (" NA", None),
        ("", None),
        ("True", 1.0),
        ("false", 0.0),
        ("1_000", "1_000"),
        ("Rome", "Rome"),
    ],
)
def test_a_cell_of_a_feature(cell: str, found: object) -> None:
    assert parse_feature(cell) == found


def test_counts_are_judged_as_numbers_and_the_assumption_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    truth = random.poisson(120, 3_000)
    said = np.rint(truth * np.where(np.arange(3_000) < 1_500, 1.0, 0.6) + random.normal(0, 12, 3_000)).astype(int)
    path = tmp_path / "bikes.csv"
    rows = (f"{random.normal():.3f},Oslo,{y},{p}" for y, p in zip(truth, said, strict=True))
    path.write_text("\n".join(["temp,city,y,p", *rows]))
    notes: list[str] = []
    _, summary = run(ReplayConfig(str(path), LABEL_AND_PREDICTION), notes)
    (metrics,) = summary["metrics"]
    assert metrics["task"] == "regression"
    assert metrics["total"]["mae"] == pytest.approx(np.abs(truth - said).mean())
    assert any(one["signal"] == "error" and one["direction"] == "worse" for one in summary["episodes"])
    assert notes[0].startswith("regression is assumed: labels are")
    assert notes[1:] == ["no features, since they hold text, which is not watched: city"]
    _, summary = run(ReplayConfig(str(path), LABEL_AND_PREDICTION, "classification"), notes)
    assert summary["metrics"][0]["task"] == "classification"
