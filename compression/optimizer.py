"""The optimizer: a job in, a judged outcome out: cut the rows, run the recipe's arms, let the gate judge the best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..schemas.config import RepairConfig
from ..schemas.errors import JobError, RecipeInvalid
from ..schemas.recipe_reading import check_options
from ..schemas.verdicts import EarlyExit, GateVerdict
from .arms import Choice, run_arms
from .cpu import Cpu
from .gate import METRICS, Trial, judge
from .job import Job, Outcome
from .job_context import JobContext, earlier_versions
from .job_data import cut
from .lineage import Judged, manifest_of
from .track import Tell, Track
from .workpiece import Workpiece

ARMS_END = 0.85


class Optimizer:
    """What runs jobs; `timer` gives seconds, `cpu` is the machine they are judged on."""

    def __init__(self, config: RepairConfig, timer: Callable[[], float], cpu: Cpu | None = None) -> None:
        self._config = config
        self._timer = timer
        self._cpu = Cpu() if cpu is None else cpu

    def run(self, job: Job, tell: Tell) -> Outcome:
        """Return the judged outcome of `job`; `tell` hears how far it is.

        Raises JobError for too few or unfit rows, and ArtifactInvalid for a champion that cannot be used.
        """
        track = Track(tell)
        champion = Workpiece(job.champion.onnx, job.signature, version=job.champion.version)
        champion.runner  # noqa: B018 - one that cannot be used ends the job before anything else
        data = cut(job, champion, self._config)
        arms = track.part("arms", 0.1, ARMS_END)
        context = JobContext(data, champion, earlier_versions(job), self._cpu, self._seed(job), arms)
        choice = run_arms(job.recipe, context, self._config.min_holdout_rows)
        outcome = self._judged(job, choice, context.on(track.part("gate", ARMS_END, 1.0)))
        track.part("done", 1.0, 1.0).progress(1.0, "promoted" if outcome.verdict.promoted else "rejected")
        return outcome

    def _judged(self, job: Job, choice: Choice, context: JobContext) -> Outcome:
        chosen = choice.chosen
        arms = tuple(candidate.as_event() for candidate in choice.candidates)
        if choice.exit is not None and choice.stays:
            verdict = unchallenged(job, chosen.results, choice.exit)
            return Outcome(verdict=verdict, arm=chosen.arm, arms=arms, early_exit=choice.exit)
        context.track.progress(0.0, f"{chosen.arm} against the champion")
        trial = Trial(context.champion.runner, chosen.piece.runner, context.data.holdout, context.data.notes, choice.evidence)
        verdict = judge(trial, job.recipe.gate, self._timer)
        version = chosen.piece.version
        if version is not None:
            return Outcome(verdict=verdict, arm=chosen.arm, arms=arms, recalled_version=version, early_exit=choice.exit)
        manifest = manifest_of(job, context, Judged(chosen, verdict, self._timer))
        return Outcome(verdict=verdict, arm=chosen.arm, arms=arms, onnx=chosen.piece.onnx, manifest=manifest)

    def _seed(self, job: Job) -> int:
        """Return the seed that the job's options name, else that of the settings."""
        try:
            check_options(job.options)
        except RecipeInvalid as problem:
            raise JobError("error", str(problem)) from problem
        return int(job.options.get("seed", self._config.seed))


def unchallenged(job: Job, results: NDArray[np.float64], found: EarlyExit) -> GateVerdict:
    """Return the rejection where no candidate was made: the champion's `results` on the held-out rows stand for both."""
    metric, size_bytes = float(results.mean()), len(job.champion.onnx)
    return GateVerdict(
        promoted=False,
        reasons=(f"the champion is back at the level before the change: {found.reached:.3g} against {found.level:.3g}",),
        metric=METRICS[job.signature.task],
        candidate=metric,
        champion=metric,
        difference=0.0,
        interval=(0.0, 0.0),
        rows=len(results),
        churn=0.0,
        size_bytes=size_bytes,
        champion_size_bytes=size_bytes,
    )
