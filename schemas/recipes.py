"""Recipes: what a job does to a model, as data: arms of steps, and the rule of the gate. Never code.

A recipe comes from the literal table here, from `[recipes.<name>]` of the settings, from a JSON or TOML file, or with a request. All of
them pass through `recipe_of`, so a wrong name or parameter is told in the same words by commands, settings and workers. A field is only
ever added; one that a step does not have is refused, since a worker that passed over it would run another recipe than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
Ratio = Annotated[float, Meta(gt=0)]
Positive = Annotated[int, Meta(ge=1, le=10**9)]


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """The base of every step. `needs_torch`: it imports torch; `trains`: it learns from labelled rows."""

    needs_torch: ClassVar[bool] = False
    trains: ClassVar[bool] = False


class Recall(Step, frozen=True, kw_only=True, tag="recall"):
    """An earlier version of the model; none named means each of them in turn: a concept that returns is known already."""

    version: Positive | None = None


class Affine(Step, frozen=True, kw_only=True, tag="affine"):
    """A linear map of the champion's scores behind its own graph: prior shift, lost calibration, classes that changed places.

    `ridge` rows' worth of evidence, in rough terms, holds the map at leaving everything as it is.
    """

    trains: ClassVar[bool] = True
    ridge: Annotated[float, Meta(ge=0, le=1e6)] = 1.0


class Refit(Step, frozen=True, kw_only=True, tag="refit"):
    """New leaf values in the trees that are there, by Newton steps tree after tree on the rows after the change; no torch.

    `decay` is the share of the old values that is kept. `l2` rows' worth of evidence, in rough terms, holds a leaf to what its branch
    says. `learning_rate` is that of boosted trees, and at least 4 / rounds; it does not count for a forest.
    """

    trains: ClassVar[bool] = True
    # Of champions that were right by a concept now reversed, half of the old values undoes the new: .47 for .85 (a forest, 300 rows).
    decay: Share = 0.1
    l2: Annotated[float, Meta(gt=0, le=1e6)] = 2.0
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.1


class Reset(Step, frozen=True, kw_only=True, tag="reset"):
    """New weights, by seed, in every trained layer; constants such as input standardisation stay."""

    needs_torch: ClassVar[bool] = True


class Descent(Step, frozen=True, kw_only=True):
    """The base of steps that train with AdamW and a learning rate that falls to nothing, on the rows after the change.

    `epochs` are at least so many that `min_steps` are made: a few hundred rows make so few steps an epoch that the epochs alone would
    stop far from the optimum. An epoch whose mean loss is below `enough_loss` is the last one.
    """

    needs_torch: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    epochs: Positive = 20
    min_steps: Annotated[int, Meta(ge=0, le=10**9)] = 200
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-2
    batch_rows: Positive = 64
    enough_loss: Annotated[float, Meta(ge=0)] = 0.01


class Finetune(Descent, frozen=True, kw_only=True, tag="finetune"):
    """Training of the model's own weights.

    `old_weight` above 0 adds as many rows from before the change, each of that weight: a floor for the old concept, not a default,
    since it costs accuracy on the new one.
    """

    old_weight: Share = 0.0


class Correct(Descent, frozen=True, kw_only=True, tag="correct"):
    """A small net behind the champion, which is only run: over its features and its scores it learns what to add to the scores.

    `hidden` units in one layer, whose output begins at zero; the mean of `members` nets of different seeds.
    """

    # Ten times that of the model's own training: one layer over standardised inputs bears it, and 200 steps are enough.
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-2
    hidden: Annotated[int, Meta(ge=1, le=4096)] = 64
    members: Annotated[int, Meta(ge=1, le=16)] = 3


class Prune(Step, frozen=True, kw_only=True, tag="prune"):
    """Structured pruning: `ratio` of the channels less, by magnitude, in every layer but the last; a Finetune should follow.

    What is left of a width is rounded down to a multiple of `multiple`: others made the model slower than it was.
    """

    needs_torch: ClassVar[bool] = True
    ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    multiple: Annotated[int, Meta(ge=1, le=1024)] = 16


class Quantize(Step, frozen=True, kw_only=True, tag="quantize"):
    """Static int8, calibrated on the newest `rows` that are not held out; no labels are needed."""

    rows: Positive = 512


AnyStep = Recall | Affine | Correct | Refit | Reset | Finetune | Prune | Quantize
Arm = tuple[AnyStep, ...]
STEP_TYPES: dict[str, type[Step]] = {str(kind.__struct_config__.tag): kind for kind in get_args(AnyStep)}


class GateRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show on the held-out rows; ratios are candidate / champion, a bound that is null does not count.

    One of two is named: `min_gain`, and the interval of the paired difference must lie above it; or `max_loss`, and it must not reach
    below minus that (a share of the champion's error for a regression). A class or segment of at least so many rows may not lose more
    than its floor. The file must be smaller than `max_size_ratio` times the champion's, unless it grows by no more than
    `size_slack_bytes`; a call may take `max_latency_ratio` times as long, or `latency_slack_us` longer.
    """

    min_gain: Annotated[float, Meta(ge=0)] | None = None
    max_loss: Annotated[float, Meta(ge=0)] | None = None
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.9
    max_size_ratio: Ratio | None = None
    size_slack_bytes: Annotated[int, Meta(ge=0)] = 0
    max_latency_ratio: Ratio | None = None
    latency_slack_us: Annotated[float, Meta(ge=0)] = 0.0
    max_churn: Share | None = None
    max_segment_loss: Annotated[float, Meta(ge=0)] | None = 0.05
    min_segment_rows: Annotated[int, Meta(ge=5)] = 30
    max_class_loss: Annotated[float, Meta(ge=0)] | None = None
    min_class_rows: Annotated[int, Meta(ge=5)] = 30


Exit = Literal["recall_reaches_level", "champion_reaches_level"]
"""Named rules that end a repair before any arm trains, each by the level before the change.

`recall_reaches_level`: an earlier version that beats the champion does as well as the best did before: a concept that returns is not
trained again. `champion_reaches_level`: no earlier version beats the champion, and the rows do not show it below that level; a few
hundred rows seldom show anything, and the level may have sunk before, so no built-in recipe ends by it.
"""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe: arms by name, made side by side, the rule by which the gate judges the best, and what may end the search early."""

    name: str
    arms: dict[str, Arm]
    gate: GateRule
    exits: tuple[Exit, ...] = ()

    @property
    def steps(self) -> Iterator[AnyStep]:
        """Yield the steps of all arms."""
        for arm in self.arms.values():
            yield from arm

    @property
    def needs_torch(self) -> bool:
        """Return True where a step imports torch."""
        return any(step.needs_torch for step in self.steps)

    @property
    def trains(self) -> bool:
        """Return True where a step learns from labelled rows."""
        return any(step.trains for step in self.steps)


BUILT_IN: dict[str, Recipe] = {
    "repair": Recipe(
        name="repair",
        arms={
            "recall": (Recall(),),
            "affine": (Affine(),),
            "correct": (Correct(),),
            "refit": (Refit(),),
            "finetune": (Finetune(),),
            "finetune_old": (Finetune(old_weight=0.2),),
            "scratch": (Reset(), Finetune()),
        },
        # What a few nodes and some kilobytes cost beside a model that takes 10 us is a large ratio and nothing that a service feels.
        gate=GateRule(min_gain=0.0, max_size_ratio=1.5, size_slack_bytes=256 * 1024, max_latency_ratio=1.25, latency_slack_us=50.0),
        exits=("recall_reaches_level",),
    ),
    "int8": Recipe(
        name="int8",
        arms={"int8": (Quantize(),)},
        # A compression must not be slower; 5 % can be measured.
        gate=GateRule(max_loss=0.01, max_churn=0.05, max_size_ratio=1.0, max_latency_ratio=1.05),
    ),
    "prune50-int8": Recipe(
        name="prune50-int8",
        arms={"prune50-int8": (Prune(ratio=0.5), Finetune(), Quantize())},
        # No bound on churn: what is trained anew answers otherwise, also where that is better; so each class has a floor.
        gate=GateRule(max_loss=0.01, max_class_loss=0.05, max_size_ratio=0.5, max_latency_ratio=1.05),
    ),
}
