"""Task and columns of a table: one rule for replay, compress and demo, and what it says aloud."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from driftloop.schemas.errors import InputInvalid
from driftloop.streams.table_columns import Wanted, choose
from driftloop.streams.table_file import open_csv
from driftloop.streams.table_task import class_kind, class_of, task_of, typed_classes

RANDOM = np.random.default_rng(2)


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["yes", "no", "yes"], "classification"),
        (["True", "false", ""], "classification"),
        (["0", "1", "", "1.0"], "classification"),
        (["1", "x"], "classification"),
        ([""], "classification"),
        ([str(value) for value in RANDOM.integers(0, 10, 500)], "classification"),
        ([str(value) for value in RANDOM.integers(0, 26, 500)], "classification"),
        ([str(value) for value in RANDOM.integers(1, 51, 2_000)], "classification"),
        (["0.5", "1", "2"], "regression"),
        (["1e3", "2.5e0"], "regression"),
        ([str(value) for value in RANDOM.poisson(120, 1_000)], "regression"),
        ([str(value) for value in RANDOM.poisson(40, 1_000)], "regression"),
        ([f"{value}.0" for value in RANDOM.poisson(40, 1_000)], "regression"),
        ([str(-value) for value in RANDOM.integers(0, 60, 1_000)], "regression"),
        ([str(value) for value in range(300)], "regression"),
        (["9" * 400, "1"], "regression"),
    ],
)
def test_the_task_that_labels_show(cells: Sequence[str], task: str) -> None:
    found = task_of(None, cells)
    assert found.task == task
    other = "regression" if task == "classification" else "classification"
    assert f"{task} is assumed: " in str(found.sentence())
    assert f"--task {other} says otherwise" in str(found.sentence())
    said = task_of(other, cells)
    assert (said.task, said.sentence()) == (other, None)


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["1", "1.0", "True"], "whole", [1, 1, 1]),
        (["true", "False"], "truth", [True, False]),
        (["1", " two "], "text", ["1", "two"]),
        (["0.5", "1"], "text", ["0.5", "1"]),
    ],
)
def test_classes_are_of_one_kind(cells: list[str], kind: str, classes: list[object]) -> None:
    assert class_kind(cells) == kind
    found = [class_of(cell, kind, "here") for cell in cells]
    assert found == classes
    assert [type(value) for value in found] == [type(value) for value in classes]


def test_a_class_of_another_kind_is_named() -> None:
    with pytest.raises(
        InputInvalid, match=r"class must be a whole number as in the rows before, got '1\.5' \(here\); --task regression"
    ):
        class_of("1.5", "whole", "here")


def test_names_of_classes_may_be_words_for_nothing() -> None:
    assert typed_classes(["none", "mild"]) == ["none", "mild"]
    assert typed_classes(["0", "1"]) == [0, 1]


def chosen(
    folder: Path, header: str, rows: Sequence[str], wanted: Wanted, needed: int | None = None
) -> tuple[list[str], str | None]:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *rows]))
    with open_csv(str(path)) as file:
        found = choose(file, list(file), wanted, needed)
        return [file.header[at] for at in found.features], found.sentence()


def log_rows() -> list[str]:
    times = [f"2024-05-01T00:{row // 60:02}:{row % 60:02}" for row in range(300)]
    counters = [f"{row},{9_000 - 3 * row},{1.7e9 + row // 2},{times[row]}" for row in range(300)]
    return [f"{counters[row]},{RANDOM.normal():.3f},{row // 150},{row % 2}" for row in range(300)]


HEADER = ",id,seconds,time,amount,step,y"


def test_what_counts_the_rows_is_no_feature_and_is_named(tmp_path: Path) -> None:
    names, said = chosen(tmp_path, HEADER, log_rows(), Wanted("y"))
    assert names == ["amount", "step"]
    assert "the one without a name, id, seconds, time (--features" in str(said)


def test_the_user_says_which_columns_are_features(tmp_path: Path) -> None:
    assert chosen(tmp_path, HEADER, log_rows(), Wanted("y", features=("step", "id"))) == (["step", "id"], None)
    assert chosen(tmp_path, HEADER, log_rows(), Wanted("y", ignored=("amount",)))[0] == ["step"]
    for wanted in (
        Wanted("y", features=("y",)),
        Wanted("y", features=("nothing",)),
        Wanted("y", ignored=("nothing",)),
        Wanted("y", "y"),
    ):
        with pytest.raises(InputInvalid):
            chosen(tmp_path, HEADER, log_rows(), wanted)


def test_a_model_says_how_many_features_there_are(tmp_path: Path) -> None:
    assert len(chosen(tmp_path, HEADER, log_rows(), Wanted("y"), 6)[0]) == 6
    assert chosen(tmp_path, HEADER, log_rows(), Wanted("y"), 2)[0] == ["amount", "step"]
    assert len(chosen(tmp_path, HEADER, log_rows(), Wanted("y"), 4)[0]) == 6
