"""The arms of a recipe side by side: each a line of steps from the champion to a candidate; the newest rows, unseen, choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import ArtifactInvalid, DriftloopError, JobError
from ..schemas.recipes import Arm, Recall, Recipe
from ..schemas.verdicts import ArmResult, EarlyExit
from .early_exit import Standing, early_exit, level_before
from .gate import fits_size, paired_interval
from .job_context import JobContext
from .steps import run_step
from .workpiece import Workpiece


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one arm offers; `results` holds one number per held-out row, higher is better."""

    arm: str
    piece: Workpiece
    results: NDArray[np.float64]

    @property
    def metric(self) -> float:
        """Return the mean result."""
        return float(self.results.mean())

    def as_event(self) -> ArmResult:
        """Return the arm as the events tell it."""
        return ArmResult(arm=self.arm, metric=self.metric, rows=len(self.results), version=self.piece.version)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate and all of them; `exit` names the rule that made training needless. It may be the champion that stays."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    exit: EarlyExit | None = None

    @property
    def stays(self) -> bool:
        """Return True where the champion itself is the one chosen."""
        return self.exit is not None and self.exit.rule == "champion_reaches_level"


def run_arms(recipe: Recipe, context: JobContext, least_rows: int) -> Choice:
    """Return the best candidate of all arms.

    Arms that train nothing run first, then the exits are looked at, `least_rows` old rows making a level; then the others run. An arm
    that fails gives nothing and says why. Raises JobError where none gave a candidate, or the reason itself of a single arm.
    """
    runs = _Runs(context)
    free = {name: arm for name, arm in recipe.arms.items() if not any(step.trains for step in arm)}
    span = 1 / len(recipe.arms)
    for at, (name, arm) in enumerate(free.items()):
        runs.run(name, arm, (at * span, (at + 1) * span))
    recalled = [one for one in runs.candidates if one.piece.version is not None]
    champion = context.champion.results(context.data.holdout)
    best = max(recalled, key=lambda candidate: candidate.metric, default=None)
    if best is not None and not _better(best.results, champion, recipe, context):
        best = None
    before = level_before(context, least_rows) if recipe.exits else None
    if before is not None:
        standing = Standing(champion, None if best is None else best.results, before, recipe.gate.confidence)
        found = early_exit(recipe.exits, standing)
        if found is not None and best is not None:
            return Choice(best, tuple(runs.candidates), found)
        if found is not None:
            stays = Candidate("champion", context.champion, champion)
            return Choice(stays, (stays, *runs.candidates), found)
    for at, (name, arm) in enumerate(((name, arm) for name, arm in recipe.arms.items() if name not in free), len(free)):
        runs.run(name, arm, (at * span, (at + 1) * span))
    if not runs.candidates:
        raise _nothing(recipe, runs.problems)
    return Choice(_choose(runs.candidates, best, recipe, context), tuple(runs.candidates))


class _Runs:
    """The arms that ran: their candidates, and why the others gave none."""

    def __init__(self, context: JobContext) -> None:
        self.candidates: list[Candidate] = []
        self.problems: dict[str, DriftloopError] = {}
        self._context = context

    def run(self, name: str, arm: Arm, span: tuple[float, float]) -> None:
        """Run an arm, once for each earlier version where it begins with a recall that names none."""
        track = self._context.track.part(name, *span)
        lines = [arm]
        if isinstance(arm[0], Recall) and arm[0].version is None:
            lines = [(Recall(version=known.version), *arm[1:]) for known in self._context.earlier]
            track.progress(0.0, f"{len(lines)} earlier versions on {len(self._context.data.holdout)} rows")
        for line in lines:
            try:
                piece = self._context.champion
                for at, step in enumerate(line):
                    part = track.part(name, at / len(line), (at + 1) / len(line))
                    piece = run_step(step, piece, self._context.on(part))
                results = piece.results(self._context.data.holdout)
            except (JobError, ArtifactInvalid) as problem:
                # One damaged version, or an arm that does not fit the model, must not end the others.
                self.problems[name] = problem
                track.progress(0.0, f"gave nothing: {problem}")
                continue
            self.candidates.append(Candidate(name, piece, results))
            track.scalars(1.0, len(self.candidates), {"holdout_metric": self.candidates[-1].metric})


def _choose(candidates: list[Candidate], best: Candidate | None, recipe: Recipe, context: JobContext) -> Candidate:
    """Return the best made candidate where it is shown to be better than the best recalled one, which beats the champion."""
    made = [candidate for candidate in candidates if candidate.piece.version is None]
    size = len(context.champion.onnx)
    # One that the gate refuses for its size stands behind all that it takes, however good.
    made = [candidate for candidate in made if fits_size((size, len(candidate.piece.onnx)), recipe.gate)] or made
    leader = max(made, key=lambda candidate: candidate.metric, default=None)
    if leader is None:
        return max(candidates, key=lambda candidate: candidate.metric)
    if best is None or _better(leader.results, best.results, recipe, context):
        return leader
    return best


def _nothing(recipe: Recipe, problems: dict[str, DriftloopError]) -> DriftloopError:
    if len(recipe.arms) == 1 and problems:
        return next(iter(problems.values()))
    why = "; ".join(f"{arm}: {problem}" for arm, problem in problems.items()) or "no earlier version"
    return JobError("error", f"recipe {recipe.name} must give a candidate, got none ({why})")


def _better(one: NDArray[np.float64], other: NDArray[np.float64], recipe: Recipe, context: JobContext) -> bool:
    return paired_interval(one - other, recipe.gate.confidence, context.champion.signature.task)[0] > 0
