"""Features of one row, in whatever form a program holds them: names come along, order stays, more rows than one are refused."""

import array
import collections
import sqlite3
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from driftloop.schemas.errors import EventInvalid
from driftloop.streams.client import ClientConfig, RecordingClient

NAMES = {"amount": 1.5, "age": 41.0}
RECORDS = np.array([(1.5, 41)], dtype=[("amount", "f8"), ("age", "i4")])


class RangeIndex(list[int]):
    """The index of a frame or series without names, which only counts."""


class Frame:
    """A frame as pandas has it, as far as one row is concerned."""

    def __init__(self, rows: list[dict[Any, Any]], columns: Any = None) -> None:
        self.columns = list(rows[0]) if columns is None else columns
        self.shape = (len(rows), len(self.columns))
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Any:
        return iter(self.columns)

    def to_dict(self, orient: str) -> Any:
        assert orient == "records"
        return self._rows


def sqlite_row() -> sqlite3.Row:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row: sqlite3.Row = connection.execute("select 1.5 as amount, 41 as age").fetchone()
    connection.close()
    return row


def logged(features: Any, form: Any = "packed") -> Any:
    client = RecordingClient(ClientConfig(strict=True, format=form))
    client.log_prediction("m", output=1, features=features)
    (event,) = client.events
    return event.features  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["packed", "json"])
@pytest.mark.parametrize(
    ("features", "read_back"),
    [
        (RECORDS, NAMES),
        (RECORDS[0], NAMES),
        (RECORDS.view(np.recarray)[0], NAMES),
        (sqlite_row(), NAMES),
        (collections.OrderedDict(NAMES), NAMES),
        (collections.ChainMap({"amount": 1.5}, {"age": 41.0}), NAMES),
        (Frame([{"amount": 1.5, "age": 41}]), NAMES),
        (Frame([{0: 1.5, 1: 41}], RangeIndex([0, 1])), [1.5, 41.0]),
        (Frame([{3: 1.5, 7: 41}]), {"3": 1.5, "7": 41.0}),
        (SimpleNamespace(index=["amount", "age"], tolist=lambda: [1.5, 41]), NAMES),
        (SimpleNamespace(index=RangeIndex([0, 1]), tolist=lambda: [1.5, 41]), [1.5, 41.0]),
        (SimpleNamespace(tolist=lambda: [[1.5, 41]]), [1.5, 41.0]),
        (np.array([[1.5, 41.0]]), [1.5, 41.0]),
        (np.ma.array([1.5, 41.0], mask=[False, True]), [1.5, None]),
        (np.array([1.5, None, "red"], object), [1.5, None, "red"]),
        (np.array(["red", "blue"]), ["red", "blue"]),
        (array.array("d", [1.5, 41.0]), [1.5, 41.0]),
        (NAMES.values(), [1.5, 41.0]),
        ({"a": np.float32(3e38), "b": np.float32(3e38)}, {"a": float(np.float32(3e38)), "b": float(np.float32(3e38))}),
        ({}, {}),
        ([], []),
    ],
)
def test_one_row_of_every_form(form: Any, features: Any, read_back: Any) -> None:
    assert logged(features, form) == read_back


@pytest.mark.parametrize("form", ["packed", "json"])
@pytest.mark.parametrize(
    ("features", "rule"),
    [
        (Frame([{"a": 1.0}, {"a": 2.0}]), "one row, got 2"),
        (Frame([], ["a"]), "one row, got 0"),
        (Frame([{"a": 1.0}], ["a", "a"]), "distinct names"),
        (np.concatenate([RECORDS, RECORDS]), "one row, got 2"),
        (np.zeros((3, 2)), "one row, got 3"),
        (np.zeros((1, 1, 1)), "3 dimensions"),
        (np.array(1.0), "0 dimensions"),
        (SimpleNamespace(tolist=lambda: 1.5), "one row, got a single float"),
        (np.array(["2026-01-01"], "datetime64[ns]"), "features must be numbers"),
        (np.array([1 + 2j]), "features must be numbers"),
        ({1.0, 2.0}, "got set"),
        (b"raw", "got bytes"),
        ("text", "got str"),
        ((value for value in [1.0]), "got generator"),
        (5, "got int"),
        (None, "got NoneType"),
        ({"a": {"b": 1.0}}, "features must be numbers"),
        ({("a", "b"): 1.0}, "names of features must be text"),
        ({1: 1.0, "1": 2.0}, "distinct names"),
        ([[1.0, 2.0]], "features must be numbers"),
    ],
)
def test_what_is_no_row_is_refused_with_the_reason(form: Any, features: Any, rule: str) -> None:
    with pytest.raises(EventInvalid, match=rule):
        logged(features, form)


def test_a_row_of_pandas_has_names() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"amount": [1.5, 2.5], "age": [41, 42], "ok": [True, False], "kind": ["red", None]})
    assert logged(frame.iloc[:1]) == {"amount": 1.5, "age": 41.0, "ok": 1.0, "kind": "red"}
    assert logged(frame.iloc[1:]) == {"amount": 2.5, "age": 42.0, "ok": 0.0, "kind": None}
    assert logged(frame.iloc[0]) == {"amount": 1.5, "age": 41.0, "ok": 1.0, "kind": "red"}
    assert logged(frame[["amount", "age"]].iloc[0]) == NAMES
    assert logged(pandas.DataFrame([[1.5, 41.0]])) == [1.5, 41.0]
    assert logged(pandas.Series([1.5, pandas.NA], index=["amount", "age"])) == {"amount": 1.5, "age": None}
    assert logged({"amount": pandas.NA, "age": pandas.NaT}) == {"amount": None, "age": None}
    with pytest.raises(EventInvalid, match="one row, got 2"):
        logged(frame)
    with pytest.raises(EventInvalid, match="features must be numbers"):
        logged({"at": pandas.Timestamp("2026-01-01")})


def test_a_row_of_polars_or_pyarrow_has_names() -> None:
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"amount": [1.5, 2.5], "age": [41, 42]}
    assert logged(polars.DataFrame(columns)[:1]) == NAMES
    assert logged(polars.Series([1.5, 41.0])) == [1.5, 41.0]
    assert logged(pyarrow.table(columns).slice(0, 1)) == NAMES
    assert logged(pyarrow.RecordBatch.from_pydict(columns).slice(0, 1)) == NAMES
    assert logged(pyarrow.array([1.5, None])) == [1.5, None]
    for rows in (polars.DataFrame(columns), pyarrow.table(columns)):
        with pytest.raises(EventInvalid, match="one row, got 2"):
            logged(rows)


def test_a_tensor_is_a_row() -> None:
    torch = pytest.importorskip("torch")
    assert logged(torch.tensor([1.5, 41.0])) == [1.5, 41.0]
    assert logged(torch.tensor([[1.5, 41.0]])) == [1.5, 41.0]
    with pytest.raises(EventInvalid, match="one row, got 2"):
        logged(torch.zeros((2, 2)))
