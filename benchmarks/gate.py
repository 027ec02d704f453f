"""Measures: how often a repair from 300 labels is promoted where nothing changed (an error), and where the best it can do is a small gain.

Each trial is a whole job of the recipe `repair`: a network trained on 3,000 rows is the champion, 300 new labelled rows are given. What the
candidate is truly worth is measured on 20,000 later rows, which no job sees.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from driftloop.compression.job import Job, ModelVersion
from driftloop.compression.optimizer import Optimizer
from driftloop.compression.runtime import Runner, outcomes
from driftloop.compression.small_model import train_small_model
from driftloop.compression.store import digest_of
from driftloop.schemas.config import RepairConfig
from driftloop.schemas.events import Signature
from driftloop.schemas.recipes import BUILT_IN
from driftloop.schemas.rows import Rows

OLD_ROWS, NEW_ROWS, LATER_ROWS = 3_000, 300, 20_000
Draw = Callable[[np.random.Generator, int, bool], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Scenario:
    """A stream of `classes` (0: numbers) over `features`; `draw` gives rows from before or after its change."""

    features: int
    classes: int
    draw: Draw

    def rows(self, rng: np.random.Generator, count: int, *, after: bool) -> Rows:
        features, labels = self.draw(rng, count, after)
        return Rows(features.astype(np.float32), labels.astype(np.int64 if self.classes else np.float64), np.arange(count))


def border(turn: float) -> Draw:
    """Two classes with a crooked border and a tenth of the labels wrong; after the change it is turned by so many radians."""

    def draw(rng: np.random.Generator, count: int, after: bool) -> tuple[np.ndarray, np.ndarray]:
        features = rng.normal(size=(count, 5))
        angle = turn if after else 0.0
        side = features[:, 0] * np.cos(angle) + features[:, 1] * np.sin(angle) + 0.5 * features[:, 2] * features[:, 3]
        return features, (side > 0) ^ (rng.random(count) < 0.1)

    return draw


def clouds(share: float) -> Draw:
    """Four classes of normal features; after the change the first has this share, and the others share the rest."""
    centres = 0.8 * np.random.default_rng(9).normal(size=(4, 6))

    def draw(rng: np.random.Generator, count: int, after: bool) -> tuple[np.ndarray, np.ndarray]:
        first = share if after else 0.25
        labels = rng.choice(4, count, p=[first, *[(1 - first) / 3] * 3])
        return centres[labels] + rng.normal(size=(count, 6)), labels

    return draw


def line(slope: float) -> Draw:
    """Numbers with noise; after the change one slope is another."""

    def draw(rng: np.random.Generator, count: int, after: bool) -> tuple[np.ndarray, np.ndarray]:
        features = rng.normal(size=(count, 5))
        value = np.abs(features[:, 0]) + features[:, 1] * (slope if after else 1.0)
        return features, 500 + 40 * (value + 0.5 * rng.normal(size=count))

    return draw


UNCHANGED = {"border": Scenario(5, 2, border(0.0)), "clouds": Scenario(6, 4, clouds(0.25)), "line": Scenario(5, 0, line(1.0))}
GAINS = {"border": Scenario(5, 2, border(0.36)), "clouds": Scenario(6, 4, clouds(0.8))}


@dataclass
class Tally:
    """What came of the trials of one scenario; gains in points, of all candidates and of the promoted ones, seconds a job."""

    promoted: list[bool] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, float]:
        won = [gain for gain, promoted in zip(self.gains, self.promoted, strict=True) if promoted]
        return {
            "trials": len(self.promoted),
            "promoted": sum(self.promoted),
            "share": round(float(np.mean(self.promoted)), 4),
            "true_gain": round(float(np.mean(self.gains)), 3),
            "true_gain_of_promoted": round(float(np.mean(won)), 3) if won else 0.0,
            "seconds_a_job": round(float(np.median(self.seconds)), 2),
        }


def trial(scenario: Scenario, seed: int, tally: Tally) -> None:
    """Run one job and add to the tally."""
    rng = np.random.default_rng(seed)
    task = "classification" if scenario.classes else "regression"
    names = tuple(f"x{at}" for at in range(scenario.features))
    signature = Signature(task=task, features=names, classes=tuple(range(scenario.classes)))
    onnx = train_small_model(scenario.rows(rng, OLD_ROWS, after=False), signature)
    new, later = scenario.rows(rng, NEW_ROWS, after=True), scenario.rows(rng, LATER_ROWS, after=True)
    job = Job("j", "m", BUILT_IN["repair"], ModelVersion(1, digest_of(onnx), onnx), signature, new, options={"seed": seed})
    begun = time.perf_counter()
    outcome = Optimizer(RepairConfig(), time.perf_counter).run(job, lambda news: None)
    tally.seconds.append(time.perf_counter() - begun)
    tally.promoted.append(outcome.verdict.promoted)
    results = [outcomes(Runner(data, signature).scores(later.features), later, task) for data in (onnx, outcome.onnx or onnx)]
    unit = 1.0 if scenario.classes else float(-results[0].mean())
    tally.gains.append(100 * float(results[1].mean() - results[0].mean()) / unit)
    print(
        f"seed {seed}: {outcome.arm} promoted={outcome.verdict.promoted} gain {tally.gains[-1]:+.2f}", file=sys.stderr, flush=True
    )


def main() -> None:
    """Run the trials and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="of streams that did not change")
    parser.add_argument("--gain-trials", type=int, default=40, help="for each stream with a small gain")
    parser.add_argument("--first", type=int, default=0, help="seed of the first trial, to share a run out over processes")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    unchanged = {name: Tally() for name in UNCHANGED}
    for seed in range(asked.first, asked.first + asked.trials):
        name = list(UNCHANGED)[seed % len(UNCHANGED)]
        trial(UNCHANGED[name], seed, unchanged[name])
    gains = {name: Tally() for name in GAINS}
    for seed in range(asked.first, asked.first + asked.gain_trials):
        for name, scenario in GAINS.items():
            trial(scenario, 10_000 + seed, gains[name])
    told = {
        part: {name: tally.told() for name, tally in tallies.items() if tally.promoted}
        for part, tallies in (("unchanged", unchanged), ("gains", gains))
    }
    every = [promoted for tally in unchanged.values() for promoted in tally.promoted]
    told["promoted_unchanged"] = {"trials": len(every), "share": round(sum(every) / max(1, len(every)), 4)}
    if asked.json:
        print(json.dumps(told))
        return
    for part, figures in told.items():
        print(part, json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
