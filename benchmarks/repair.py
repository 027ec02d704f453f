"""Measures: what a repair gives by kind of drift, champion and number of labels, beside each arm alone and training on all rows since.

For each: accuracy on later rows as a share of what the champion's own kind gives that is trained on all rows since the change (for
numbers: the share of the mean absolute error that is less than that of always saying the median). The later rows are every other one
from the 2,001st on, the same for all; the others are among those "since the change". An arm alone is made from the rows that the
recipe's arms are made from, and meets no gate. `behind` is by how many points the whole recipe is below the arm that is best on average.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from champions import Maker, Nets, Trees
from drifts import KINDS, Drift, NotHere
from environments import Unavailable

from driftloop.compression.arms import run_arms
from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.job_context import JobContext, earlier_versions
from driftloop.compression.job_data import cut
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.track import Track
from driftloop.compression.trainer import warm_up
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.errors import DriftloopError
from driftloop.schemas.recipes import BUILT_IN, GateRule, Recipe
from driftloop.schemas.rows import Rows
from driftloop.streams.this_cpu import this_cpu

LABELS = (300, 2_000)
AIMS = {("net", 300): 0.93, ("net", 2_000): 0.98, ("lightgbm", 300): 0.90, ("lightgbm", 2_000): 0.95}
AIM_BEHIND = 1.0
RECIPE = BUILT_IN["repair"]
CONFIG = RepairConfig()
ALONE = GateRule(max_loss=1.0)
"""An arm alone has nothing to be chosen from, and is made once."""


@dataclass
class Figures:
    """What the seeds of one kind, champion and number of labels gave; levels of the frozen champion, the ceiling, recipe and arms."""

    frozen: list[float] = field(default_factory=list)
    ceiling: list[float] = field(default_factory=list)
    repair: list[float] = field(default_factory=list)
    arms: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    arm_seconds: dict[str, list[float]] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """Return means over the seeds; an arm that gave nothing for a seed is left out."""
        ceiling = float(np.mean(self.ceiling))
        arms = {name: float(np.mean(levels)) for name, levels in self.arms.items() if len(levels) == len(self.ceiling)}
        best = max(arms, key=arms.__getitem__, default=None)
        repair = float(np.mean(self.repair))
        return {
            "ceiling": round(ceiling, 4),
            "frozen": round(float(np.mean(self.frozen)) / ceiling, 3),
            "repair": round(repair / ceiling, 3),
            "arms": {name: round(level / ceiling, 3) for name, level in arms.items()},
            "best": best,
            "behind": None if best is None else round(100 * (arms[best] - repair), 2),
            "chosen": {name: self.chosen.count(name) for name in sorted(set(self.chosen))},
            "seconds": round(float(np.mean(self.seconds)), 2),
            "arm_seconds": {name: round(float(np.mean(spent)), 2) for name, spent in self.arm_seconds.items()},
        }


@dataclass(frozen=True)
class Case:
    """One drift with its champion, the versions before it, the later rows, and what training on all rows since the change gives."""

    drift: Drift
    champion: Workpiece
    earlier: tuple[Workpiece, ...]
    later: Rows
    ceiling: float

    def job(self, labels: int, seed: int) -> Job:
        """Return the job that repairs the champion with so many labels."""
        versions = [ModelVersion(2, self.champion.digest, self.champion.onnx)]
        versions += [ModelVersion(1, one.digest, one.onnx) for one in self.earlier]
        rows, old = self.drift.after.take(slice(0, labels)), self.drift.before.take(slice(-CONFIG.max_old_rows, None))
        return Job("job", "model", RECIPE, versions[0], self.champion.signature, rows, old, tuple(versions[1:]), {"seed": seed})


def case_of(drift: Drift, maker: Maker, seed: int) -> Case:
    """Train the champion, and its like on all rows since the change."""
    since = np.arange(len(drift.after))
    held = (since >= max(LABELS)) & (since % 2 == 1)
    earlier = () if drift.first is None else (maker.train(drift.first, drift.classes, seed),)
    champion = maker.train(drift.before, drift.classes, seed)
    later = drift.after.where(held)
    best = maker.train(drift.after.where(~held), drift.classes, seed)
    return Case(drift, champion, earlier, later, level(best, later))


def level(piece: Workpiece, rows: Rows) -> float:
    """Return the accuracy, or the share of the error that always saying the median makes and this does not."""
    results = float(piece.results(rows).mean())
    if piece.signature.task == "classification":
        return results
    return 1 + results / float(np.abs(rows.labels - np.median(rows.labels)).mean())


def run_case(case: Case, labels: int, seed: int, figures: Figures) -> None:
    """Repair once, and once with each arm alone."""
    job = case.job(labels, seed)
    figures.ceiling.append(case.ceiling)
    figures.frozen.append(level(case.champion, case.later))
    start = time.perf_counter()
    outcome = Optimizer(CONFIG, time.perf_counter, this_cpu()).run(job, lambda news: None)
    figures.seconds.append(time.perf_counter() - start)
    serves = case.champion
    if outcome.verdict.promoted:
        serves = case.earlier[0] if outcome.onnx is None else serves.changed(outcome.onnx)
    figures.repair.append(level(serves, case.later))
    figures.chosen.append(outcome.arm if outcome.verdict.promoted else "champion")
    champion = Workpiece(job.champion.onnx, job.signature, version=2)
    context = JobContext(cut(job, champion, CONFIG), champion, earlier_versions(job), this_cpu(), seed, Track(lambda news: None))
    for name, arm in RECIPE.arms.items():
        start = time.perf_counter()
        try:
            found = run_arms(Recipe(name=name, arms={name: arm}, gate=ALONE), context, CONFIG.min_holdout_rows).chosen
        except DriftloopError:
            continue
        figures.arm_seconds.setdefault(name, []).append(time.perf_counter() - start)
        figures.arms.setdefault(name, []).append(level(found.piece, case.later))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all kinds, champions and numbers of labels."""
    problems: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        makers: dict[str, Maker] = {}
        for name in arguments.champions:
            try:
                makers[name] = Nets() if name == "net" else stack.enter_context(Trees(arguments.lightgbm))
            except Unavailable as problem:
                problems[name] = str(problem)
        for name, maker in makers.items():
            for kind in arguments.kinds:
                try:
                    found += run_kind(name, maker, kind, arguments)
                except (NotHere, Unavailable) as problem:
                    problems[f"{name} {kind}"] = str(problem)
    return {"cases": found, "summary": list(summary(found)), "recipe": msgspec.to_builtins(RECIPE), "problems": problems}


def run_kind(name: str, maker: Maker, kind: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of one kind and champion."""
    figures = {labels: Figures() for labels in arguments.labels}
    for seed in range(arguments.seeds):
        case = case_of(shortened(KINDS[kind](seed), arguments.rows), maker, seed)
        for labels in arguments.labels:
            run_case(case, labels, seed, figures[labels])
    told = [{"kind": kind, "champion": name, "labels": labels, **one.told()} for labels, one in figures.items()]
    if not arguments.json:
        for one in told:
            show(one)
    return told


def shortened(drift: Drift, rows: int) -> Drift:
    """Return the drift with at most so many rows before the change, the newest, and after it, the first."""
    parts = [drift.before.take(slice(-rows, None)), drift.after.take(slice(0, rows))]
    return Drift(parts[0], parts[1], drift.classes, None if drift.first is None else drift.first.take(slice(0, rows)))


def summary(cases: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the means over the kinds, beside the aims."""
    for champion, labels in dict.fromkeys((case["champion"], case["labels"]) for case in cases):
        mine = [case for case in cases if (case["champion"], case["labels"]) == (champion, labels)]
        behind = [case["behind"] for case in mine if case["behind"] is not None]
        yield {
            "champion": champion,
            "labels": labels,
            "share": round(float(np.mean([case["repair"] for case in mine])), 3),
            "aim": AIMS.get((champion, labels)),
            "least_share": min(case["repair"] for case in mine),
            "most_behind": max(behind, default=None),
            "aim_behind": AIM_BEHIND,
            "seconds": round(float(np.mean([case["seconds"] for case in mine])), 2),
        }


def show(case: dict[str, Any]) -> None:
    """Print the figures of one case for people."""
    arms = " ".join(f"{name} {share:.2f}" for name, share in case["arms"].items())
    print(
        f"{case['kind']:18} {case['champion']:8} {case['labels']:5} repair {case['repair']:.2f} of {case['ceiling']:.3f} "
        f"(frozen {case['frozen']:.2f}) behind {case['behind']} {case['seconds']:.1f} s | {arms} | {case['chosen']}"
    )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS])
    parser.add_argument("--champions", nargs="+", choices=["net", "lightgbm"], default=["net", "lightgbm"])
    parser.add_argument("--labels", nargs="+", type=int, choices=LABELS, default=[*LABELS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8_000, help="rows before the change and after it at most")
    parser.add_argument("--lightgbm", metavar="PYTHON", help="an interpreter that has lightgbm and onnxmltools")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    warm_up()
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    for one in result["summary"]:
        print(one)
    for name, reason in result["problems"].items():
        print(f"no figure for {name}: {reason}")


if __name__ == "__main__":
    main()
