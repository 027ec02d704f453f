"""The child process of a job: `python -m driftloop.streams.job_child FOLDER [wait]`.

Reads the job from FOLDER, prints one line of JSON a step on stdout, writes the outcome into FOLDER and exits 0; exits 1 with the cause in
error.json, 2 for wrong arguments. With `wait` it imports torch and scipy first and then waits for a line on stdin, before there is a
job. Limits of time and memory are the parent's business.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def main(arguments: list[str]) -> int:
    """Run the job and return the exit code."""
    waits = arguments[1:] == ["wait"]
    if not arguments or len(arguments) != 1 + waits or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m driftloop.streams.job_child FOLDER [wait]\n")
        return 2
    # Read by torch and numpy on import, which comes after this. Contended threads are slower than one.
    os.environ["OMP_NUM_THREADS"] = "1"
    lines = sys.stdout
    # What libraries print must not end up between the lines that the parent reads.
    sys.stdout = sys.stderr
    try:
        if waits and not _warmed():
            return 2
        return _run(Path(arguments[0]), lines)
    finally:
        sys.stdout = lines


def _warmed() -> bool:
    """Import what training takes, then wait; return False where nothing is to come."""
    import scipy.optimize  # noqa: F401 - maps of scores are fitted with it

    with suppress(ImportError):
        from ..compression.trainer import warm_up

        warm_up()
    return bool(sys.stdin.readline())


def _run(folder: Path, lines: TextIO) -> int:
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

            torch.set_num_threads(1)
        write_outcome(folder, Optimizer(config, time.perf_counter, this_cpu()).run(job, tell))
    except Exception as problem:  # noqa: BLE001 - the parent must hear every cause, and this process ends here
        write_error(folder, problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
