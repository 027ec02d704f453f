"""Fit a table's rows to a model: as many features, the task, and the classes in the order of the scores; what is guessed is told."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..schemas.errors import Conflict, InputInvalid
from ..schemas.events import Scalar, Signature, Task
from ..schemas.rows import Rows
from .labelled_table import Table, read_table
from .table_columns import Wanted
from .table_file import open_csv
from .table_task import typed_classes

MOST_SHOWN = 12


class Interface(NamedTuple):
    """What a model takes and gives: features a row, scores a row (None: not known), whether the one score comes from a Sigmoid.

    `classes`: those that the file names, in the order of the scores. `columns`: the features that it names, `texts` what
    each of them may hold where it is a category.
    """

    features: int
    scores: int | None
    input_name: str
    output_name: str
    sigmoid: bool = False
    classes: tuple[Scalar, ...] = ()
    columns: tuple[str, ...] = ()
    texts: tuple[tuple[str, ...], ...] = ()


class Wish(NamedTuple):
    """What the user said of the rows: file, columns, task, and the classes in the order of the scores by commas (empty: not said)."""

    path: str
    columns: Wanted
    task: Task | None
    classes: str


class Fitted(NamedTuple):
    """Rows that fit a model's signature, and what to tell the user of how they were read."""

    signature: Signature
    rows: Rows
    notes: tuple[str, ...]


def fit(model: Interface, wish: Wish) -> Fitted:
    """Return the rows of a table as the model takes them.

    Raises InputInvalid for a table that cannot be read, Conflict where rows and model do not fit together.
    """
    task, notes = wish.task, []
    if task is None and not wish.classes and model.scores is not None:
        task = "regression" if model.scores == 1 and not model.sigmoid else "classification"
        other = "classification" if task == "regression" else "regression"
        notes.append(f"{task} is assumed: the model gives {_scores(model.scores)} a row (--task {other} says otherwise)")
    table = read_table(wish.path, _columns(model, wish), "classification" if wish.classes else task, model.features, model.texts)
    if len(table.names) != model.features:
        raise Conflict(
            f"rows must have the model's {model.features} features beside {wish.columns.label!r}, got {len(table.names)} ({wish.path}); "
            "--features names the columns, --ignore leaves some out"
        )
    classes = _classes(model, wish, table) if table.task == "classification" else ()
    labels = table.labels
    if classes:
        labels = np.array([classes.index(value) for value in table.classes], np.int64)[table.labels]
    signature = Signature(
        task=table.task,
        features=table.names,
        classes=classes,
        input_name=model.input_name,
        output_name=model.output_name,
        categories={name: known for name, known in zip(table.names, model.texts, strict=False) if known},
    )
    rows = Rows(table.features, labels, np.arange(len(table), dtype=np.int64))
    return Fitted(signature, rows, (*notes, *table.notes))


def _columns(model: Interface, wish: Wish) -> Wanted:
    """Return the columns that the user named, else those that the model names where the table has them all."""
    if wish.columns.features or not model.columns:
        return wish.columns
    with open_csv(wish.path) as file:
        return replace(wish.columns, features=model.columns) if set(model.columns) <= set(file.header) else wish.columns


def _classes(model: Interface, wish: Wish, table: Table) -> tuple[Scalar, ...]:
    wanted = 2 if model.scores == 1 and model.sigmoid else model.scores
    if not wish.classes and model.classes and set(table.classes) <= set(model.classes):
        return model.classes
    if not wish.classes:
        if wanted is not None and len(table.classes) != wanted:
            where = f"({wish.path}, column {wish.columns.label})"
            if len(table.classes) > wanted:
                cure = "--task regression takes numbers, --label names another column"
                raise Conflict(f"rows must hold the model's {wanted} classes, got {len(table.classes)} {where}; {cure}")
            cure = f"name all of them in the order of the scores, such as --classes {_shown(table.classes)},..."
            raise Conflict(f"rows hold {len(table.classes)} of the model's {wanted} classes {where}; {cure}")
        return table.classes
    named = tuple(typed_classes([cell.strip() for cell in wish.classes.split(",") if cell.strip()]))
    if len(set(named)) != len(named):
        raise InputInvalid(f"classes must differ, got {wish.classes!r} (--classes)")
    if wanted is not None and len(named) != wanted:
        raise Conflict(f"classes must be as many as the model has scores, {wanted}, got {len(named)} (--classes)")
    unknown = [value for value in table.classes if value not in named]
    if unknown:
        raise Conflict(
            f"labels must be of the classes {_shown(named)}, got {unknown[0]!r} ({wish.path}, column {wish.columns.label})"
        )
    return named


def _scores(count: int) -> str:
    return "one score" if count == 1 else f"{count} scores"


def _shown(classes: tuple[Scalar, ...]) -> str:
    text = ",".join(str(value) for value in classes[:MOST_SHOWN])
    return text if len(classes) <= MOST_SHOWN else f"{text},..."
