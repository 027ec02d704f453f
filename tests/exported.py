"""The tabular exports in tests/exports, with what their sources said of forty rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftloop.schemas.events import Scalar, Signature

FOLDER = Path(__file__).parent / "exports"
CLASSES: dict[str, tuple[Scalar, ...]] = {"two": (0, 1), "words": ("no", "yes"), "three": (0, 1, 2), "number": ()}


@cache
def expected() -> dict[str, NDArray[np.float64]]:
    with np.load(FOLDER / "expected.npz") as held:
        return dict(held)


def names() -> list[str]:
    """`<file>.<kind of label>` of each export."""
    return sorted(name for name in expected() if name != "rows")


def export(name: str) -> bytes:
    return (FOLDER / f"{name.split('.')[0]}.onnx").read_bytes()


def classes_of(name: str) -> tuple[Scalar, ...]:
    return CLASSES[name.split(".")[1]]


def signature_for(name: str, input_name: str, output_name: str) -> Signature:
    classes = classes_of(name)
    task = "classification" if classes else "regression"
    return Signature(task=task, features=("a", "b", "c", "d"), classes=classes, input_name=input_name, output_name=output_name)


@cache
def mixed() -> dict[str, NDArray[Any]]:
    with np.load(FOLDER / "mixed.npz") as held:
        return dict(held)


@cache
def nets() -> dict[str, NDArray[Any]]:
    """`<file>`: the rows, each in one piece; `<file>=`: what torch says of them."""
    with np.load(FOLDER / "nets.npz") as held:
        return dict(held)


def mixed_names() -> list[str]:
    """`<file>=<kind of label>` of each export whose input is not one matrix of float32."""
    return sorted(name for name in mixed() if "=" in name)


def mixed_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows that the source of an export was asked, each by the names of its columns (their numbers without names)."""
    stem = name.split("=")[0]
    keys = sorted((key for key in mixed() if key.startswith(f"{stem}/")), key=lambda key: int(key.split("/")[1].split(".")[0]))
    columns = {key.split(".", 1)[1] or key.split("/")[1].rstrip("."): mixed()[key].tolist() for key in keys}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
