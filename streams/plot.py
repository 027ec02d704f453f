"""Draw accuracy or error over time: the frozen and the adapted model, drift and swaps marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BIN_ROWS = 500
FROZEN_COLOUR = "#8a8f98"
ADAPTED_COLOUR = "#1769aa"
DRIFT_COLOUR = "#c62828"
SWAP_COLOUR = "#2e7d32"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn: how well each row was answered from `first_row` on, where drift was found, which version began to serve where."""

    first_row: int
    frozen: NDArray[np.float64]
    adapted: NDArray[np.float64]
    changes: Sequence[int]
    swaps: Sequence[tuple[int, int]]
    title: str
    measure: str = "accuracy"


def binned(found: NDArray[np.float64], first_row: int, bin_rows: int) -> tuple[list[int], list[float]]:
    """Return the first row and the mean of every bin; bins lie on multiples of `bin_rows`, the outer two may be shorter."""
    edges = [first_row, *range((first_row // bin_rows + 1) * bin_rows, first_row + len(found), bin_rows), first_row + len(found)]
    pairs = [(start, stop) for start, stop in pairwise(edges) if stop > start]
    return [start for start, _ in pairs], [float(found[start - first_row : stop - first_row].mean()) for start, stop in pairs]


def draw(picture: Picture, path: Path) -> None:
    """Write the picture as PNG, and the folder it needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for right, label, colour in ((picture.frozen, "frozen", FROZEN_COLOUR), (picture.adapted, "adapted", ADAPTED_COLOUR)):
        rows, accuracy = binned(right, picture.first_row, BIN_ROWS)
        middles = [row + BIN_ROWS / 2 for row in rows]
        axes.plot(middles, accuracy, color=colour, label=label, linewidth=2)
    for at, row in enumerate(picture.changes):
        axes.axvline(row, color=DRIFT_COLOUR, linestyle="--", linewidth=1.2, label="drift (change point)" if at == 0 else None)
    for at, (row, version) in enumerate(picture.swaps):
        axes.axvline(row, color=SWAP_COLOUR, linestyle=":", linewidth=1.2, label="new champion" if at == 0 else None)
        lift = 9 * (at % 2)
        axes.annotate(
            f"v{version}",
            (row, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, lift),
            textcoords="offset points",
            color=SWAP_COLOUR,
            fontsize=8,
        )
    axes.set_ylim(bottom=0, top=1 if picture.measure == "accuracy" else None)
    axes.set_xlim(picture.first_row, picture.first_row + len(picture.frozen))
    axes.set_xlabel("row")
    axes.set_ylabel(f"{picture.measure} by {BIN_ROWS} rows")
    axes.set_title(picture.title)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": "driftloop"})
