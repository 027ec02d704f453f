"""Driftloop's side: the data plane, exactly once, as the settings of the environment say, until all records are committed."""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import confluent_kafka

LOOK_S = 0.01


class StampedConsumer(confluent_kafka.Consumer):
    """Be a consumer that remembers when the first records came: progress tells only of batches that are done."""

    first_at = 0.0

    def consume(self, *arguments: Any, **named: Any) -> list[Any]:
        messages: list[Any] = super().consume(*arguments, **named)
        if not StampedConsumer.first_at and any(message.error() is None for message in messages):
            StampedConsumer.first_at = time.time()
        return messages


class Look:
    """Look at the data plane's progress from another thread until `records` are taken in, then stop it, or kill this process."""

    def __init__(self, plane: Any, records: int, *, kill: bool) -> None:
        self.plane = plane
        self.records = records
        self.kill = kill
        self.progress_at = 0.0
        self.stop = threading.Event()

    def __call__(self) -> None:
        done_at = 0.0
        while not self.stop.is_set():
            time.sleep(LOOK_S)
            progress = self.plane.progress
            if progress.records and not self.progress_at:
                self.progress_at = time.time()
            if progress.records < self.records:
                continue
            if not self.kill:
                self.stop.set()
                return
            done_at = done_at if done_at else time.time()
            if progress.last_commit_at is not None and progress.last_commit_at > done_at:
                print(json.dumps(self.answer()), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    def answer(self) -> dict[str, Any]:
        """Return times in seconds since 1970, and what was done."""
        progress, first_at = self.plane.progress, StampedConsumer.first_at
        return {
            "pairs": progress.pairs,
            "records": progress.records,
            "seconds": (progress.last_commit_at or 0.0) - first_at,
            "progress_at": self.progress_at,
            "committed_at": progress.last_commit_at,
            "commits": progress.commits,
            "rollbacks": progress.rollbacks,
            "restored_s": progress.restored_s,
        }


def main() -> None:
    order = json.loads(sys.argv[1])
    # Before anything of driftloop's names it.
    confluent_kafka.Consumer = StampedConsumer
    from driftloop.settings import load_settings
    from driftloop.streams.data_plane import DataPlane

    plane = DataPlane(load_settings())
    look = Look(plane, int(order.get("records", 2 * order.get("pairs", 0))), kill=bool(order.get("kill")))
    threading.Thread(target=look, daemon=True).start()
    began_s = time.thread_time()
    try:
        plane.run(look.stop)
    finally:
        # Of the data plane's thread alone; librdkafka has threads of its own.
        print(json.dumps({**look.answer(), "thread_cpu_s": round(time.thread_time() - began_s, 3)}), flush=True)


if __name__ == "__main__":
    main()
