"""Run the data plane alone in this process: `python -m driftloop.streams.data_plane_main`, settings from file and environment."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from ..schemas.errors import DriftloopError
from ..settings import load_settings
from .data_plane import DataPlane
from .slots import held_slots


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with held_slots(load_settings(), ["monitor"]) as settings:
            DataPlane(settings).run(stop)
    except DriftloopError as problem:
        logging.getLogger("driftloop.data_plane").error("%s", problem)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
