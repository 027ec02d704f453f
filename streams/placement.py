"""Where records lie and where their key belongs: labels placed by another partitioner than their predictions never meet them."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from ..schemas.dead_letters import DeadLetter
from ..schemas.partitions import partition_of
from ..schemas.records import Batch
from .client_settings import log

# One key in so many: most batches have few, which come again and again.
STEP = 16
MAX_KEYS = 10_000
QUIET_S = 60.0
SETTING = 'partitioner: "murmur2_random" (of Java clients: the default)'


class Placement:
    """Where the keys of predictions and labels were seen by one process; `partitions` is how many there are."""

    def __init__(self, partitions: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._partitions = partitions
        self._clock = clock
        self._seen: dict[str, dict[bytes, set[int]]] = {"predictions": {}, "labels": {}}
        self._apart: set[bytes] = set()
        self._told_at: dict[bytes, float] = {}

    def note(self, batch: Batch, partition: int) -> None:
        """Take some keys of a batch into account, and tell once a minute of one whose labels and predictions lie apart."""
        for kind, seen in self._seen.items():
            keys = set(getattr(batch, kind).keys[::STEP])
            for key in keys - seen.keys() if len(seen) < MAX_KEYS else ():
                if key is not None:
                    seen[key] = set()
            for key in keys & seen.keys():
                if partition not in seen[key]:
                    seen[key].add(partition)
                    self._judge(key)
            for key in keys & self._apart:
                self._tell(key)

    def _judge(self, key: bytes) -> None:
        places = [seen.get(key, set()) for seen in self._seen.values()]
        if all(places) and places[0].isdisjoint(places[1]):
            self._apart.add(key)
        else:
            self._apart.discard(key)

    def _tell(self, key: bytes) -> None:
        now = self._clock()
        if now - self._told_at.get(key, -QUIET_S) < QUIET_S:
            return
        self._told_at[key] = now
        own = partition_of(key, self._partitions)
        predictions, labels = (sorted(seen[key]) for seen in self._seen.values())
        wrong = "labels" if labels != [own] else "predictions"
        log.warning(
            "labels of key %r lie in partition %s, its predictions in %s, where no label joins them: the producer of %s must set %s",
            key, labels, predictions, wrong, SETTING,
        )  # fmt: skip


def with_cause(letter: DeadLetter, partitions: int) -> DeadLetter:
    """Return the letter of a label that nothing joined with the cause, where the label does not lie where its key belongs."""
    if letter.disposition != "unjoinable" or letter.key is None:
        return letter
    own = partition_of(letter.key, partitions)
    if own == letter.partition:
        return letter
    message = (
        f"{letter.message}; its key belongs in partition {own} and it lies in {letter.partition}: "
        f"labels and predictions need one partitioner, set {SETTING}"
    )
    return msgspec.structs.replace(letter, message=message)
