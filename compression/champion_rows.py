"""What the champion makes of labelled rows: those it cannot answer, its level beside chance, the order its classes seem to have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.events import Scalar, Signature
from ..schemas.rows import Rows
from .runtime import Floats, Runner, outcomes

ORDER_GAIN = 0.1
"""Another order of the classes is told where the champion is right on so much more of the rows in it."""
SHOWN_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows that the champion answers by finite scores, and what is to be said of it and of the others."""

    rows: Rows
    notes: tuple[str, ...]


def answered(champion: Runner, rows: Rows, signature: Signature) -> Answered:
    """Return the rows that the champion answers; raises ArtifactInvalid where it fails on them."""
    scores = champion.scores(rows.features)
    sound = np.asarray(np.isfinite(scores).all(axis=1))
    notes = []
    if not sound.all():
        holes = int((~np.isfinite(rows.features).all(axis=1) & ~sound).sum())
        left_out = int((~sound).sum())
        notes.append(
            f"{left_out} of {len(rows)} rows are left out: the model's scores are not finite on them ({holes} have missing values)"
        )
        rows, scores = rows.where(sound), scores[sound]
    if len(rows):
        notes += level_notes(scores, rows, signature)
    return Answered(rows, tuple(notes))


def level_notes(scores: Floats, rows: Rows, signature: Signature) -> list[str]:
    """Return what to say of a champion that knows no more than someone who never saw the features."""
    level = float(outcomes(scores, rows, signature.task).mean())
    if signature.task == "regression":
        chance = -float(np.abs(rows.labels - np.median(rows.labels)).mean())
        if level > chance:
            return []
        return [
            f"the model is at chance level: its mean absolute error is {-level:.4g}, always answering the median has {-chance:.4g}"
        ]
    labels = rows.labels.astype(np.int64)
    chance = float(np.bincount(labels).max()) / len(rows)
    notes = []
    order = better_order(scores.argmax(axis=1), labels, signature.classes)
    if level <= chance:
        notes.append(f"the model is at chance level: right on {level:.1%} of the rows, the most frequent class has {chance:.1%}")
    if order is not None:
        names = ",".join(str(value) for value in order[:SHOWN_CLASSES]) + (",..." if len(order) > SHOWN_CLASSES else "")
        notes.append(f"the classes seem to be in another order: the model is right on more of the rows with --classes {names}")
    return notes


def better_order(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[Scalar, ...]) -> tuple[Scalar, ...] | None:
    """Return the order of the classes in which the answers fit the labels clearly better, None where there is none."""
    count = len(classes)
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (answers, labels), 1)
    place: dict[int, int] = {}
    for cell in np.argsort(-table, axis=None, kind="stable").tolist():
        column, label = divmod(cell, count)
        if column not in place and label not in place.values():
            place[column] = label
        if len(place) == count:
            break
    gain = sum(int(table[column, label] - table[column, column]) for column, label in place.items())
    if gain < ORDER_GAIN * len(labels):
        return None
    return tuple(classes[place[column]] for column in range(count))
