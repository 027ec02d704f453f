"""The CPU of this machine, or one without flags where the system does not tell."""

import sys
from pathlib import Path

import pytest

from driftloop.compression.cpu import Cpu
from driftloop.streams.this_cpu import CPUINFO, this_cpu


def test_flags_are_read_and_a_machine_that_does_not_tell_has_none(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    assert this_cpu(file) == Cpu()
    assert this_cpu(tmp_path) == Cpu()
    file.write_text("processor : 0\nflags : fpu avx2 avx_vnni\n", "utf-8")
    assert this_cpu(file).has_vnni


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/cpuinfo")
def test_this_machine_tells_its_flags() -> None:
    assert CPUINFO.exists()
    assert this_cpu().flags
