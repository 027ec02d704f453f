"""The rows of a job, cut once and by one rule: the newest are held out, and no step and no choice sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..schemas.config import RepairConfig
from ..schemas.errors import JobError
from ..schemas.rows import Rows
from .champion_rows import Answered, answered
from .job import Job
from .row_counts import check_enough, held_out
from .runtime import Floats
from .workpiece import Workpiece


@dataclass(frozen=True, slots=True)
class JobData:
    """The rows after the change in two parts by time, `training` and `holdout`, the newest `old` ones from before it, and notes.

    `unlabelled`: features (n, k) of all rows after the change that are not held out, for steps that need no labels.
    """

    training: Rows
    holdout: Rows
    old: Rows | None
    unlabelled: Floats
    notes: tuple[str, ...] = ()

    def calibration(self, count: int) -> Floats:
        """Return the newest rows without gaps: one NaN makes a range NaN, also where a later layer swallows it."""
        whole = self.unlabelled[np.isfinite(self.unlabelled).all(axis=1)]
        return (whole if len(whole) else self.unlabelled)[-count:]


def cut(job: Job, champion: Workpiece, config: RepairConfig) -> JobData:
    """Return the rows of a job; raises JobError where they do not fit the signature or are too few.

    Where the gate allows a loss, only rows that the champion can answer count: on others there is nothing to lose.
    """
    check_rows(job)
    known = Answered(job.rows, ())
    if job.recipe.gate.max_loss is not None:
        known = answered(champion.runner, job.rows, job.signature)
    rows = known.rows
    check_enough(len(rows), job.recipe, config, known.notes)
    border = len(rows) - held_out(len(rows), config)
    training, holdout = rows.take(slice(0, border)), rows.take(slice(border, len(rows)))
    old = job.old_rows
    if old is not None:
        old = old.take(slice(max(0, len(old) - config.max_old_rows), len(old)))
    return JobData(training, holdout, old if old is not None and len(old) else None, training.features, known.notes)


def check_rows(job: Job) -> None:
    """Raise JobError for rows that do not fit the signature."""
    features, labels = job.rows.features, job.rows.labels
    if features.ndim != 2 or features.shape != (len(labels), len(job.signature.features)):
        wanted = [len(labels), len(job.signature.features)]
        raise JobError("error", f"features must have shape {wanted}, got {list(features.shape)}")
    for rows in (job.rows, job.old_rows):
        if rows is None or not len(rows):
            continue
        if job.signature.task == "classification":
            low, high = int(rows.labels.min()), int(rows.labels.max())
            if low < 0 or high >= len(job.signature.classes):
                raise JobError("error", f"labels must be class indices 0 to {len(job.signature.classes) - 1}, got {low} to {high}")
        elif not np.isfinite(rows.labels).all():
            raise JobError("error", "labels must be finite numbers")
