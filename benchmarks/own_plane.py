"""Driftloop's side: the data plane, exactly once, as the settings of the environment say, until all records are committed."""

import json
import sys
import threading
import time
from typing import Any

from driftloop.settings import load_settings
from driftloop.streams.data_plane import DataPlane

LOOK_S = 0.02


class Look:
    """Look at the data plane's progress from another thread, and stop it once it is done."""

    def __init__(self, plane: DataPlane, order: dict[str, Any]) -> None:
        self.plane = plane
        self.records = int(order["records"]) if "records" in order else 2 * int(order["pairs"])
        self.first_at = 0.0
        self.last_at = 0.0
        self.stop = threading.Event()

    def __call__(self) -> None:
        while not self.stop.is_set():
            progress = self.plane.progress
            if not self.first_at and progress.records:
                self.first_at = time.time()
            if progress.records >= self.records:
                self.last_at = time.time()
                self.stop.set()
            time.sleep(LOOK_S)


def main() -> None:
    order = json.loads(sys.argv[1])
    plane = DataPlane(load_settings())
    look = Look(plane, order)
    threading.Thread(target=look, daemon=True).start()
    plane.run(look.stop)
    print(json.dumps({"pairs": order["pairs"], "seconds": look.last_at - look.first_at}))


if __name__ == "__main__":
    main()
