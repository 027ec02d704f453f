"""The CPU that an artifact is made for and judged on, as its flags tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU that the result is judged on; without flags it counts as one without VNNI."""

    flags: frozenset[str] = frozenset()

    @property
    def has_vnni(self) -> bool:
        """Return whether 8-bit products add up without overflow."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni"})

    @property
    def is_arm(self) -> bool:
        """Return whether signed activations are the fast ones."""
        return "asimd" in self.flags


def read_cpu(cpuinfo: str) -> Cpu:
    """Return the CPU that the text of /proc/cpuinfo describes."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return Cpu(frozenset(value.split()))
    return Cpu()
