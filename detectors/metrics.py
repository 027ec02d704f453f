"""Metrics of model versions from their sums: accuracy, precision, recall, f1, log_loss, roc_auc; mae, rmse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..schemas.events import Scalar, Task
from .metric_sums import LOSS_UNIT, Window
from .roc import area

UNSEEN = -1
MOST_UNFIT = 10
"""Of so many scored rows at most one may have scores that are no chances."""
MOST_CONTRARY = 0.75


def metrics(task: Task, window: Window, positive: int | None) -> dict[str, float]:
    """Return the metrics that the rows of a window allow; precision, recall and f1 are those of class `positive`.

    Without one they are the mean over the classes seen in the window.
    """
    if not window.rows:
        return {}
    if task == "regression":
        return {"mae": window.absolute / window.rows, "rmse": math.sqrt(window.square / window.rows)}
    hits, predicted, labelled = window.classes.astype(np.float64)
    found = {"accuracy": float(hits.sum()) / window.rows}
    counted = np.flatnonzero(predicted + labelled).tolist() if positive is None else [positive]
    parts = [_one_class(*_counts(window, at)) for at in counted]
    for number, name in enumerate(("precision", "recall", "f1")):
        found[name] = sum(part[number] for part in parts) / len(parts)
    if not believable(window):
        return found
    found["log_loss"] = window.loss_sum / LOSS_UNIT / window.losses
    areas = [one for one in (area(*histogram) for histogram in window.histograms) if one is not None]
    if areas:
        found["roc_auc"] = sum(areas) / len(areas)
    return found


def believable(window: Window) -> bool:
    """Return whether scores are the chances of the classes: few rows are none, and most name the class that was the output.

    A model that gives logits has some that look like chances by accident; one whose scores are of other classes, or in another order,
    seldom has the highest at its output. A threshold other than one half does that too, but not to most rows.
    """
    scored = window.losses + window.unfit
    return window.losses > 0 and MOST_UNFIT * window.unfit <= scored and window.contrary <= MOST_CONTRARY * window.losses


def positive_class(total: Window, classes: Sequence[Scalar], signed: int = 0) -> int | None:
    """Return the index of class 1 where there is nothing but 0 and 1 (False and True), UNSEEN where only 0 was seen, else None.

    The `signed` classes of a signature decide; without one what was seen does, not what is known: classes become known by the batch.
    """
    seen = range(signed) if signed else np.flatnonzero(total.classes[1] + total.classes[2]).tolist()
    # Labels beyond the last learned class share one index of no value.
    values = [(at, classes[at] if at < len(classes) else "") for at in seen]
    if not values or any(isinstance(value, str) or value not in (0, 1) for _, value in values):
        return None
    return next((at for at, value in values if value == 1), UNSEEN)


def _counts(window: Window, at: int) -> tuple[float, float, float]:
    if not 0 <= at < window.classes.shape[1]:
        return 0.0, 0.0, 0.0
    hits, predicted, labelled = window.classes[:, at].tolist()
    return hits, predicted, labelled


def _one_class(hits: float, predicted: float, labelled: float) -> tuple[float, float, float]:
    return (
        hits / predicted if predicted else 0.0,
        hits / labelled if labelled else 0.0,
        2.0 * hits / (predicted + labelled) if predicted + labelled else 0.0,
    )
