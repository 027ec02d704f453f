"""What `driftloop demo` prints for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .cli_console import print_table


def print_report(told: dict[str, Any], plot: Path) -> None:
    """Print the report of a demo as tables."""
    print_table(("drift", "direction", "severity", "change row", "found at row"), [_drift(found) for found in told["drift"]])
    typer.echo()
    print_table(("version", "serves from row", "metric", "size_bytes"), [_model(found) for found in told["models"]])
    typer.echo()
    print_table(("", ""), summary_lines(told, plot))


def _drift(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["signal"], found["direction"], found["severity"], found["change_row"], found["detected_row"]


def _model(found: dict[str, Any]) -> tuple[Any, ...]:
    metric = None if found["metric"] is None else f"{found['metric']:.3f}"
    return found["version"], found["promoted_at_row"], metric, found["size_bytes"]


def summary_lines(told: dict[str, Any], plot: Path) -> list[tuple[str, str]]:
    """Return what a person wants to know, as (what, value)."""
    events, timing = told["events"], told["timing"]
    measure, shown = ("accuracy", _percent) if "accuracy" in told else ("mae", _number)
    found = told[measure]
    lines = [
        (f"{'accuracy' if measure == 'accuracy' else 'absolute error'} before the drift", shown(found["before_drift"])),
        ("after it, model frozen", shown(found["frozen_after"])),
        ("after it, model repaired", shown(found["adapted_after"])),
        ("drift to published model", "-" if timing["drift_to_publish_s"] is None else f"{timing['drift_to_publish_s']:.1f} s"),
        ("events", f"{events['predictions']} predictions, {events['labels']} labels, {events['joined']} joined"),
        ("lost / duplicated / dead letters", f"{events['lost']} / {events['duplicated']} / {events['dead_lettered']}"),
        ("time", f"{timing['wall_s']:.0f} s, {timing['events_per_s']:.0f} events/s, over {told['transport']}"),
        ("picture", str(plot)),
    ]
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
