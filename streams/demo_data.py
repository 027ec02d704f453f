"""The table a demo plays: the user's, or a made stream whose concept changes and later returns."""

from __future__ import annotations

import numpy as np

from ..schemas.errors import InputInvalid
from ..schemas.events import Task
from .labelled_table import Table, read_table
from .table_columns import Wanted

MADE_ROWS = 25_000
MADE_CHANGES = (15_000, 20_000)
DEFAULT_TRAIN_ROWS = 10_000
DEFAULT_TRAIN_SHARE = 0.4
MAX_CLASSES = 100


def demo_table(path: str | None, wanted: Wanted | None, task: Task | None = None) -> Table:
    """Return the table at `path`, or the made stream; raises InputInvalid for a table whose labels hold nothing to learn."""
    if path is None or wanted is None:
        return made_table(MADE_ROWS, MADE_CHANGES)
    table = read_table(path, wanted, task)
    where = f"{path}, column {wanted.label}"
    if table.task == "classification" and not 2 <= len(table.classes) <= MAX_CLASSES:
        cure = "--task regression takes numbers, --label names another column"
        raise InputInvalid(f"label must have 2 to {MAX_CLASSES} classes, got {len(table.classes)} ({where}); {cure}")
    if table.task == "regression" and float(np.ptp(table.labels)) == 0.0:
        raise InputInvalid(f"label must vary, got {float(table.labels[0]):g} in every row ({where}); --label names another column")
    return table


def made_table(rows: int, changes: tuple[int, int], seed: int = 7) -> Table:
    """Return `rows` rows of River's RandomRBF generator: one concept, another between the two `changes`, then the first again."""
    from river.datasets import synth

    first, second = (
        iter(synth.RandomRBF(seed_model=seed + concept, seed_sample=seed + 10 + concept, n_classes=3, n_features=8, n_centroids=15))
        for concept in (0, 1)
    )
    features = np.empty((rows, 8), np.float32)
    labels = np.empty(rows, np.int64)
    for row in range(rows):
        values, label = next(second if changes[0] <= row < changes[1] else first)
        features[row] = [values[at] for at in range(8)]
        labels[row] = label
    return Table(tuple(f"x{at}" for at in range(8)), features, labels, (0, 1, 2))


def train_rows(wanted: int | None, rows: int, label_delay: int) -> int:
    """Return how many rows the first model is trained on; raises InputInvalid where too few would be left to play."""
    chosen = min(DEFAULT_TRAIN_ROWS, int(rows * DEFAULT_TRAIN_SHARE)) if wanted is None else wanted
    if chosen < 100 or rows - chosen <= label_delay:
        raise InputInvalid(f"table must leave rows to train on and to play, got {rows} rows, {chosen} of them to train on (demo)")
    return chosen
