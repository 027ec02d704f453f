"""Monitors that fail at marked records, each in a way of its own; run as a module this is a data plane in a process, with one of them."""

import os
import signal
import sys
import threading
import time

from driftloop.detectors.effects import Effects
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.records import Batch
from driftloop.settings import load_settings
from driftloop.streams.data_plane import DataPlane

MARK = b"kill me: "


def marks(batch: Batch) -> set[bytes]:
    """Return what the records of a batch are marked with."""
    values = [*batch.predictions.values, *batch.labels.values]
    return {value[len(MARK) :] for value in values if value is not None and value.startswith(MARK)}


class Marked(Monitor):
    """A monitor that fails as the record says."""

    unsaved = False

    def process(self, batch: Batch) -> Effects:
        """Take in the records, or fail halfway."""
        found = marks(batch)
        effects = super().process(batch)
        if b"raise" in found:
            raise ZeroDivisionError("marked")
        if b"memory" in found:
            raise MemoryError("marked")
        if b"exit" in found:
            os._exit(3)
        if b"crash" in found:
            os.kill(os.getpid(), signal.SIGSEGV)
        if b"event" in found:
            effects.events.append(None)  # type: ignore[arg-type]
        self.unsaved = self.unsaved or b"save" in found
        return effects

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return the state, unless a record spoilt it."""
        if self.unsaved:
            raise OverflowError("marked state")
        return super().take_dirty()


class Hopeless(Monitor):
    """A monitor that fails at whatever comes after a marked record."""

    spoilt = False

    def process(self, batch: Batch) -> Effects:
        """Take in the records until the first that is marked."""
        self.spoilt = self.spoilt or bool(marks(batch))
        if self.spoilt and len(batch):
            raise LookupError("spoilt")
        return super().process(batch)


def main() -> int:
    """Run until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    plane = threading.Thread(target=DataPlane(load_settings(), monitor=Marked).run, args=(stop,))
    plane.start()
    while plane.is_alive():
        time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
