"""Doors for tables: whatever lies in a file, the error names what, where and the cure, ends with 2, and is no traceback."""

import gzip
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.errors import DriftloopError, InputInvalid, NotFound
from driftloop.streams.demo_data import demo_table
from driftloop.streams.labelled_table import read_table
from driftloop.streams.replay import ReplayConfig, replay_file
from driftloop.streams.table_columns import Wanted
from driftloop.streams.text_file import MAX_LINE_BYTES, read_lines

GOOD = b"a,y,p\n1,0,0\n2,1,1\n"
BAD = {
    "empty": (b"", "must begin with a header line"),
    "blank header": (b"\n1,2\n", "must begin with a header line"),
    "doubled column": (b"a,a,y,p\n1,2,0,0\n", "column names must differ, got 'a' twice .*line 1"),
    "no label": (b"a,z,p\n1,0,0\n", "column must be one of a, z, p, got 'y'"),
    "label alike": (b"a,yy,p\n1,0,0\n", "did you mean yy"),
    "semicolons": (b"a;y;p\n1;0;0\n", "cells must be separated by commas, these seem to be by ';'"),
    "short row": (b"a,y,p\n1,0,0\n1,0\n", "row must have 3 cells, got 2 .*line 3"),
    "open quote": (b'a,y,p\n1,0,0\n"1,0,0\n', "a quote that is never closed .*line 3"),
    "huge cell": (b"a,y,p\n" + b"9" * 200_000 + b",0,0\n", "a cell of more than 131072 characters"),
    "NUL": (b"a,y,p\n1,0,0\n1,\x00,0\n", r"got a NUL byte .*line 3, byte 3"),
    "Latin 1": (b"a,y,p\n1,0,0\n1,caf\xe9,0\n", r"got byte 0xe9 .*line 3, byte 6.*iconv"),
    "UTF-16": ("a,y,p\n1,0,0\n".encode("utf-16"), "got UTF-16 text.*iconv"),
    "UTF-16 without a mark": ("a,y,p\n1,0,0\n".encode("utf-16-le"), "got a NUL byte .*UTF-16"),
    "Excel": (b"PK\x03\x04rest", "a zip archive, as an Excel sheet is one"),
    "Parquet": (b"PAR1rest", "a Parquet file"),
    "cut gzip": (gzip.compress(GOOD * 100)[:-10], "must be whole gzip"),
    "no gzip": (b"\x1f\x8b\x08nothing", "must be whole gzip"),
    "endless line": (gzip.compress(b"x" * (MAX_LINE_BYTES + 10)), "line must have at most 16777216 bytes"),
}


def replay(path: Path, notes: list[str] | None = None, **columns: tuple[str, ...]) -> dict:
    config = ReplayConfig(str(path), Wanted("y", "p", **columns))
    return replay_file(config, MonitorConfig(), lambda event: None, (notes if notes is not None else []).append)[0].summary()


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_table_is_told_at_each_door(tmp_path: Path, kind: str) -> None:
    data, message = BAD[kind]
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    for door in (replay, lambda file: read_table(str(file), Wanted("y", ignored=()))):
        with pytest.raises(InputInvalid, match=message) as caught:
            door(path)
        assert caught.value.exit_code == 2
        assert len(str(caught.value)) < 600
        assert str(path) in str(caught.value)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="must exist"):
        replay(tmp_path / "nothing.csv")
    for place in (tmp_path, Path("/proc/self/mem")):
        with pytest.raises(InputInvalid, match="must be readable"):
            replay(place)
    with pytest.raises(InputInvalid, match="must be readable, got File name too long"):
        replay(tmp_path / ("x" * 5_000))


@pytest.mark.parametrize(
    "data", [GOOD, b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.replace(b"\n", b"\r"), gzip.compress(GOOD, mtime=0)]
)
def test_marks_line_ends_and_gzip_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    path = tmp_path / "table"
    path.write_bytes(data)
    assert (replay(path)["predictions"], replay(path)["labels"]) == (2, 2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert replay(Path("-"))["labels"] == 2


def test_a_reader_of_lines_takes_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"\xff\x00\n\n{}\n")
    assert list(read_lines(str(path))) == [(1, b"\xff\x00"), (3, b"{}")]


def test_odd_cells_of_features_are_missing_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,y\n1,True,0\ninf,false,1\n-Infinity,nan,1\n1e39,NA,0\n,TRUE,0\n")
    table = read_table(str(path), Wanted("y"))
    expected = np.array([[1, 1], [math.nan, 0], [math.nan, math.nan], [math.nan, math.nan], [math.nan, 1]], np.float32)
    np.testing.assert_array_equal(table.features, expected)
    assert (
        table.notes[-1]
        == f"3 cells are infinite or beyond float32 and taken as missing, the first: 'inf' ({path}, line 3, column a)"
    )


@pytest.mark.parametrize(
    ("cell", "task", "message"),
    [
        ("inf", "regression", "label must be finite and within float32, got 'inf' .*line 3, column y"),
        ("1e39", "regression", "label must be finite"),
        ("", "regression", "label must be given, got an empty cell .*line 3, column y"),
        ("nan", None, "label must be given, got 'nan'"),
        ("cheap", "regression", "label must be a number, got 'cheap' .*line 3, column y.*--task classification"),
        ("99999999999999999999", "classification", r"class must be within 2\*\*53"),
        ("x" * 300, "classification", "class must have at most 256 bytes"),
    ],
)
def test_a_label_that_is_none_is_named_by_its_cell(tmp_path: Path, cell: str, task: str | None, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"a,y\n1,2\n1,{cell}\n")
    with pytest.raises(InputInvalid, match=message):
        read_table(str(path), Wanted("y"), task)


def test_a_text_among_features_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,city,y\n1,Rome,0\n2,Oslo,1\n")
    with pytest.raises(InputInvalid, match=r"feature must be a number, got 'Rome' .*line 2, column city.*--ignore city"):
        read_table(str(path), Wanted("y"))
    assert read_table(str(path), Wanted("y", ignored=("city",))).names == ("a",)


def test_the_same_true_and_false_at_each_door(tmp_path: Path) -> None:
    random = np.random.default_rng(19)
    card = random.random(6_000) < np.where(np.arange(6_000) < 3_000, 0.2, 0.8)
    said = tmp_path / "pandas.csv"
    said.write_text("card,y,p\n" + "".join(f"{bool(one)},{row % 2},{row % 2}\n" for row, one in enumerate(card)))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("card,y,p\n" + "".join(f"{int(one)},{row % 2},{row % 2}\n" for row, one in enumerate(card)))
    found = replay(said)
    assert [episode["signal"] for episode in found["episodes"]] == ["feature/card"]
    assert found == replay(numbers)


def test_infinite_cells_of_a_replay_are_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,y,p\n" + "".join(f"{cell},0,0\n" for cell in ("1", "inf", "-Infinity", "1e39", "9" * 400, "nan", "")))
    found = replay(path)
    assert found["dead_lettered"]["non_finite"] == 4
    assert found["metrics"][0]["rows"] == 3


CELLS = st.one_of(
    st.sampled_from(
        ["", "nan", "inf", "-inf", "1e39", "1e999", "true", "False", "0", "1", "1.5", "-3", "9" * 5_000, "1_000", "é", '"', "'"]
    ),
    st.text(max_size=6),
    st.floats(width=32).map(str),
)
TABLES = st.builds(
    lambda header, rows, end: end.join([header, *rows]).encode("utf-8", "surrogatepass"),
    st.sampled_from(["a,y,p", "y,p", "a,b,y,p", "a,a,y,p", "a;y;p", "", "y", ",y,p", '"a,y,p']),
    st.lists(st.lists(CELLS, min_size=2, max_size=4).map(",".join), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
FILES = st.one_of(TABLES, TABLES.map(gzip.compress), st.binary(max_size=200), TABLES.map(lambda data: gzip.compress(data)[:-9]))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=FILES, task=st.sampled_from([None, "classification", "regression"]), needed=st.sampled_from([None, 1, 2]))
def test_no_file_gets_past_a_door_as_anything_but_a_table_or_an_error_of_ours(
    tmp_path: Path, data: bytes, task: str | None, needed: int | None
) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(data)
    doors = (
        lambda: read_table(str(path), Wanted("y"), task, needed),
        lambda: demo_table(str(path), Wanted("y", features=("a",)), task),
        lambda: replay_file(ReplayConfig(str(path), Wanted("y", "p"), task), MonitorConfig(), json.dumps, lambda note: None),
        lambda: replay_file(ReplayConfig(str(path)), MonitorConfig(), json.dumps, lambda note: None),
    )
    codes: set[int] = set()
    longest = 0
    for door in doors:
        try:
            found = door()
        except DriftloopError as problem:
            codes.add(problem.exit_code)
            longest = max(longest, len(str(problem)))
            continue
        if not isinstance(found, tuple):
            assert len(found) == len(found.features) > 0
            assert not np.isinf(found.features).any()
            assert found.task == "classification" or np.isfinite(found.labels).all()
    assert codes <= {2, 3}
    assert longest < 1_000
