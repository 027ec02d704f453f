"""The CPU of this machine: what an artifact was judged on, and whether its 8-bit products add up without overflow."""

from __future__ import annotations

from pathlib import Path

from ..compression.cpu import Cpu, read_cpu

CPUINFO = Path("/proc/cpuinfo")


def this_cpu(file: Path = CPUINFO) -> Cpu:
    """Return the CPU of this machine; one without known flags where the system does not tell."""
    try:
        return read_cpu(file.read_text("utf-8", "replace"))
    except OSError:
        return Cpu()
