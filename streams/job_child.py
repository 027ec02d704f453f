"""The child process of a job: `python -m driftloop.streams.job_child FOLDER [THREADS]`.

Reads the job from FOLDER, prints one line of JSON a step on stdout, writes the outcome into FOLDER and exits 0; exits 1 with the cause in
error.json, 2 for wrong arguments. Limits of time and memory are the parent's business.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TextIO


def main(arguments: list[str]) -> int:
    """Run the job and return the exit code."""
    if not 1 <= len(arguments) <= 2 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m driftloop.streams.job_child FOLDER [THREADS]\n")
        return 2
    threads = _limit_threads(int(arguments[1]) if len(arguments) == 2 and arguments[1].isdigit() else 1)
    lines = sys.stdout
    # What libraries print must not end up between the lines that the parent reads.
    sys.stdout = sys.stderr
    try:
        return _run(Path(arguments[0]), lines, threads)
    finally:
        sys.stdout = lines


def _limit_threads(wanted: int) -> int:
    """Return how many threads to use, at most the CPUs this process may run on; two contended ones are slower than one."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    threads = max(1, min(wanted, available))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch and numpy on import, which comes after this
    return threads


def _run(folder: Path, lines: TextIO, threads: int) -> int:
    import msgspec

    from ..compression.job_folder import read_job, write_error, write_outcome
    from ..compression.track import Progress

    def tell(progress: Progress) -> None:
        lines.write(msgspec.json.encode(progress).decode() + "\n")
        lines.flush()

    try:
        tell(Progress(step="load", fraction=0.0, message="reading the job"))
        job, config = read_job(folder)
        from ..compression.optimizer import Optimizer
        from .this_cpu import this_cpu

        if job.recipe.needs_torch:
            import torch

            torch.set_num_threads(threads)
        write_outcome(folder, Optimizer(config, time.perf_counter, this_cpu()).run(job, tell))
    except Exception as problem:  # noqa: BLE001 - the parent must hear every cause, and this process ends here
        write_error(folder, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
