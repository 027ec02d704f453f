"""Kinds of drift for `repair.py`: rows of a concept, and rows of what it turned into, made by seed or cut from the real streams."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftloop.schemas.rows import Rows

DATA = Path("shared") / "data"
"""Where the real streams lie, beside a folder that holds this one."""
BEFORE = 8_000
AFTER = 8_000
NOISE = 0.1
Floats = NDArray[np.float64]


class NotHere(Exception):
    """A stream whose file is not there."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Rows before a change and after it, both in order; `first` is a concept of long ago that returns. No classes: a number."""

    before: Rows
    after: Rows
    classes: int
    first: Rows | None = None


def sensor_mixing(seed: int) -> Drift:
    """Return ten sensors that leak into each other after the change; five classes."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(5)
    plain = rng.normal(size=(BEFORE + AFTER, 10))
    scores = np.tanh(plain) @ fixed.normal(size=(10, 5)) + 0.3 * np.roll(plain, 1, 1)[:, :5] * plain[:, :5]
    labels = (scores + 0.3 * rng.normal(size=scores.shape)).argmax(axis=1)
    mixing = np.eye(10) + 0.3 * fixed.normal(size=(10, 10))
    seen = np.concatenate([plain[:BEFORE], plain[BEFORE:] @ mixing])
    return _cut(seen, labels, 5)


def label_shift(seed: int) -> Drift:
    """Return five overlapping classes, of which the rare ones become the frequent ones."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(5, 8))
    shares = ([0.4, 0.3, 0.15, 0.1, 0.05], [0.03, 0.07, 0.15, 0.35, 0.4])
    labels = np.concatenate([rng.choice(5, count, p=share) for count, share in zip((BEFORE, AFTER), shares, strict=True)])
    return _cut(centres[labels] + 1.2 * rng.normal(size=(len(labels), 8)), labels, 5)


def reversed_concept(seed: int) -> Drift:
    """Return SINE1 (Gama et al. 2004): each answer becomes the other."""
    return _two_classes(seed, _sine, lambda rows: ~_sine(rows))


def moved_boundary(seed: int) -> Drift:
    """Return CIRCLES (Gama et al. 2004): the circle moves and grows."""
    return _two_classes(seed, _circle(0.2, 0.5, 0.25), _circle(0.6, 0.5, 0.35))


def returning_concept(seed: int) -> Drift:
    """Return SINE1 that was reversed for a while and comes back; the version of long ago is in the store."""
    drift = _two_classes(seed, lambda rows: ~_sine(rows), _sine)
    long_ago = _two_classes(seed + 1000, _sine, _sine).before
    return Drift(drift.before, drift.after, 2, long_ago)


def regression(seed: int) -> Drift:
    """Return Friedman's number of five features (1991) whose features change their parts, at another level."""
    rng = np.random.default_rng(seed)
    rows = rng.random((BEFORE + AFTER, 10))
    turned = np.concatenate([rows[:BEFORE], np.roll(rows[BEFORE:], 2, axis=1)])
    labels = (
        10 * np.sin(np.pi * turned[:, 0] * turned[:, 1]) + 20 * (turned[:, 2] - 0.5) ** 2 + 10 * turned[:, 3] + 5 * turned[:, 4]
    )
    labels[BEFORE:] += 3.0
    return _cut(rows, labels + rng.normal(size=len(rows)), 0)


def insects(seed: int) -> Drift:
    """Return INSECTS (Souza et al. 2020) around its documented change, the cut moving with the seed."""
    features, labels = _read("insects_gradual_balanced")
    start = 14_500 + 200 * seed
    return _slices(features, labels, (slice(4_000, 10_000), slice(start, start + 6_000)))


def mixed(seed: int) -> Drift:
    """Return MIXED with 10 % noise (tornado) around its first reversal, the cut moving with the seed."""
    features, labels = _read("tornado_mixed_101")
    start = 20_050 + 400 * seed
    return _slices(features, labels, (slice(12_000, 20_000), slice(start, start + AFTER)))


KINDS: dict[str, Callable[[int], Drift]] = {
    "sensor_mixing": sensor_mixing,
    "label_shift": label_shift,
    "reversed_concept": reversed_concept,
    "moved_boundary": moved_boundary,
    "returning_concept": returning_concept,
    "regression": regression,
    "insects": insects,
    "mixed": mixed,
}


def rows_of(features: Floats, labels: NDArray[np.generic], classes: int) -> Rows:
    """Return rows as repairs take them."""
    kind = np.int64 if classes else np.float64
    return Rows(features.astype(np.float32), labels.astype(kind), np.arange(len(labels), dtype=np.int64))


def _cut(features: Floats, labels: NDArray[np.generic], classes: int) -> Drift:
    parts = [rows_of(features[part], labels[part], classes) for part in (slice(0, BEFORE), slice(BEFORE, None))]
    return Drift(parts[0], parts[1], classes)


def _slices(features: Floats, labels: NDArray[np.int64], parts: tuple[slice, slice]) -> Drift:
    classes = int(labels.max()) + 1
    before, after = (rows_of(features[part], labels[part], classes) for part in parts)
    return Drift(before, after, classes)


def _two_classes(seed: int, old: Callable[[Floats], NDArray[np.bool_]], new: Callable[[Floats], NDArray[np.bool_]]) -> Drift:
    rng = np.random.default_rng(seed)
    rows = rng.random((BEFORE + AFTER, 2))
    labels = np.concatenate([old(rows[:BEFORE]), new(rows[BEFORE:])]) ^ (rng.random(len(rows)) < NOISE)
    return _cut(rows, labels, 2)


def _sine(rows: Floats) -> NDArray[np.bool_]:
    return np.asarray(rows[:, 1] < np.sin(3 * rows[:, 0]))


def _circle(x: float, y: float, radius: float) -> Callable[[Floats], NDArray[np.bool_]]:
    return lambda rows: np.asarray((rows[:, 0] - x) ** 2 + (rows[:, 1] - y) ** 2 < radius**2)


@cache
def _read(name: str) -> tuple[Floats, NDArray[np.int64]]:
    places = [folder / DATA / f"{name}.csv.gz" for folder in Path(__file__).resolve().parents]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise NotHere(f"{DATA / name}.csv.gz must be there for this stream, in a folder around this one")
    with gzip.open(file, "rt") as lines:
        next(lines)
        cells = np.array([line.rstrip().split(",") for line in lines])
    return cells[:, :-1].astype(np.float64), np.unique(cells[:, -1], return_inverse=True)[1].astype(np.int64)
