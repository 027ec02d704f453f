"""The arms of a recipe side by side: each a line of steps from the champion to a candidate, chosen by rows it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import ArtifactInvalid, DriftloopError, JobError
from ..schemas.recipes import Arm, Recall, Recipe
from ..schemas.verdicts import ArmResult, EarlyExit
from .crossing import Crossing, Evidence, Mask
from .early_exit import Standing, early_exit, level_before
from .gate import fits_size, paired_interval
from .job_context import JobContext
from .steps import run_step
from .workpiece import Workpiece


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one arm offers.

    `results` holds one number a row that it was not trained on, higher is better. `piece` is made of all training rows once it is
    `whole`, before that of those that were left in last.
    """

    arm: str
    piece: Workpiece
    results: NDArray[np.float64]
    line: Arm = ()
    whole: bool = True

    @property
    def metric(self) -> float:
        """Return the mean result."""
        return float(self.results.mean())

    def as_event(self) -> ArmResult:
        """Return the arm as the events tell it."""
        return ArmResult(arm=self.arm, metric=self.metric, rows=len(self.results), version=self.piece.version)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate and all of them; `exit` names the rule that made training needless. It may be the champion that stays.

    `evidence`: what the choice is worth on training rows, beside those held out.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    exit: EarlyExit | None = None
    evidence: Evidence | None = None

    @property
    def stays(self) -> bool:
        """Return True where the champion itself is the one chosen."""
        return self.exit is not None and self.exit.rule == "champion_reaches_level"


def run_arms(recipe: Recipe, context: JobContext, least_rows: int) -> Choice:
    """Return the best candidate of all arms, made of all training rows; the held-out ones take no part in the choice.

    Arms that train nothing run first, then the exits are looked at, `least_rows` old rows making a level; then the others run. An arm
    that fails gives nothing and says why. Raises JobError where none gave a candidate, or the reason itself of a single arm.
    """
    runs = _Runs(recipe, context)
    free = [name for name, arm in recipe.arms.items() if not any(step.trains for step in arm)]
    span = 1 / (len(recipe.arms) + 1)
    for at, name in enumerate(free):
        runs.run(name, (at * span, (at + 1) * span))
    found = _early(recipe, context, runs, least_rows)
    if found is not None:
        return found
    for at, name in enumerate((name for name in recipe.arms if name not in free), len(free)):
        runs.run(name, (at * span, (at + 1) * span))
    told = tuple(runs.candidates)
    while runs.candidates:
        chosen = _choose(runs)
        whole = runs.whole(chosen, (1 - span, 1.0))
        if whole is not None:
            candidates = tuple(whole if candidate is chosen else candidate for candidate in told)
            return Choice(whole, candidates, None, runs.evidence())
        runs.candidates.remove(chosen)
    raise _nothing(recipe, runs.problems)


def _early(recipe: Recipe, context: JobContext, runs: _Runs, least_rows: int) -> Choice | None:
    """Return the choice where a rule of the recipe makes training needless; the held-out rows say so."""
    before = level_before(context, least_rows) if recipe.exits else None
    if before is None:
        return None
    best = _best_recalled(runs.candidates, runs, None)
    champion = context.champion.results(context.data.holdout)
    recalled = None if best is None else best.piece.results(context.data.holdout)
    found = early_exit(recipe.exits, Standing(champion, recalled, before, recipe.gate.confidence))
    if found is None:
        return None
    if best is not None:
        return Choice(best, tuple(runs.candidates), found, runs.evidence())
    stays = Candidate("champion", context.champion, champion)
    return Choice(stays, (stays, *runs.candidates), found)


class _Runs:
    """The arms that ran: their candidates, and why the others gave none.

    A single arm whose gate allows a loss, a compression say, has nothing to be chosen from: it is made once, and the held-out rows alone
    judge. All else is cross-fitted.
    """

    def __init__(self, recipe: Recipe, context: JobContext) -> None:
        self.candidates: list[Candidate] = []
        self.problems: dict[str, DriftloopError] = {}
        self.recipe = recipe
        self.context = context
        is_crossed = len(recipe.arms) > 1 or recipe.gate.min_gain is not None
        self.crossing = Crossing.of(context.data) if is_crossed else None
        self.judged = context.data.holdout if self.crossing is None else self.crossing.judged
        self.champion = context.champion.results(self.judged)

    def run(self, name: str, span: tuple[float, float]) -> None:
        """Run an arm, once for each earlier version where it begins with a recall that names none."""
        arm = self.recipe.arms[name]
        track = self.context.track.part(name, *span)
        lines = [arm]
        if isinstance(arm[0], Recall) and arm[0].version is None:
            lines = [(Recall(version=known.version), *arm[1:]) for known in self.context.earlier]
            track.progress(0.0, f"{len(lines)} earlier versions on {len(self.judged)} rows")
        for line in lines:
            try:
                candidate = self._candidate(name, line, self.context.on(track))
            except (JobError, ArtifactInvalid) as problem:
                # One damaged version, or an arm that does not fit the model, must not end the others.
                self.problems[name] = problem
                track.progress(0.0, f"gave nothing: {problem}")
                continue
            self.candidates.append(candidate)
            track.scalars(1.0, len(self.candidates), {"holdout_metric": candidate.metric})

    def whole(self, chosen: Candidate, span: tuple[float, float]) -> Candidate | None:
        """Return the chosen candidate made of all training rows; None where that fails."""
        if chosen.whole:
            return chosen
        track = self.context.track.part(chosen.arm, *span)
        try:
            piece = _made(chosen.line, self.context.on(track))
            piece.results(self.context.data.holdout)
        except (JobError, ArtifactInvalid) as problem:
            self.problems[chosen.arm] = problem
            track.progress(0.0, f"gave nothing: {problem}")
            return None
        return replace(chosen, piece=piece, whole=True)

    def evidence(self) -> Evidence | None:
        """Return what the choice among these candidates is worth on rows that it was not made by."""
        if self.crossing is None:
            return None
        return self.crossing.evidence(self.champion, lambda rows: _choose(self, rows).results)

    def _candidate(self, name: str, line: Arm, context: JobContext) -> Candidate:
        if self.crossing is None or not any(step.trains for step in line):
            piece = _made(line, context)
            return Candidate(name, piece, piece.results(self.judged), line)
        parts, results = self.crossing.parts(), []
        for at, (data, rows) in enumerate(parts):
            track = context.track.part(name, at / len(parts), (at + 1) / len(parts)).without_scalars()
            piece = _made(line, replace(context, data=data, track=track))
            results.append(piece.results(rows))
        return Candidate(name, piece, np.concatenate(results), line, whole=False)


def _made(line: Arm, context: JobContext) -> Workpiece:
    """Return what the steps of a line make of the champion."""
    piece = context.champion
    for at, step in enumerate(line):
        track = context.track
        piece = run_step(step, piece, context.on(track.part(track.step, at / len(line), (at + 1) / len(line))))
    return piece


def _choose(runs: _Runs, rows: Mask | None = None) -> Candidate:
    """Return the best made candidate where it is shown to be better than the best recalled one, which beats the champion."""
    made = [candidate for candidate in runs.candidates if candidate.piece.version is None]
    sizes = len(runs.context.champion.onnx)
    # One that the gate refuses for its size stands behind all that it takes, however good.
    made = [candidate for candidate in made if fits_size((sizes, len(candidate.piece.onnx)), runs.recipe.gate)] or made
    leader = _best(made, rows)
    if leader is None:
        return max(runs.candidates, key=lambda candidate: _on(candidate.results, rows).mean())
    best = _best_recalled(runs.candidates, runs, rows)
    if best is None or _better(leader.results - best.results, runs, rows):
        return leader
    return best


def _best(candidates: Sequence[Candidate], rows: Mask | None) -> Candidate | None:
    return max(candidates, key=lambda candidate: float(_on(candidate.results, rows).mean()), default=None)


def _best_recalled(candidates: Sequence[Candidate], runs: _Runs, rows: Mask | None) -> Candidate | None:
    """Return the best earlier version, None where it is not shown to beat the champion."""
    best = _best([candidate for candidate in candidates if candidate.piece.version is not None], rows)
    return best if best is not None and _better(best.results - runs.champion, runs, rows) else None


def _on(results: NDArray[np.float64], rows: Mask | None) -> NDArray[np.float64]:
    return results if rows is None else results[rows]


def _better(differences: NDArray[np.float64], runs: _Runs, rows: Mask | None) -> bool:
    signature = runs.context.champion.signature
    return paired_interval(_on(differences, rows), runs.recipe.gate.confidence, signature.task)[0] > 0


def _nothing(recipe: Recipe, problems: dict[str, DriftloopError]) -> DriftloopError:
    if len(recipe.arms) == 1 and problems:
        return next(iter(problems.values()))
    why = "; ".join(f"{arm}: {problem}" for arm, problem in problems.items()) or "no earlier version"
    return JobError("error", f"recipe {recipe.name} must give a candidate, got none ({why})")
