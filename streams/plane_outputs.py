"""What the data plane writes, as records that their topics take: events, dead letters cut to size, state in pieces, the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..detectors.effects import Effects
from ..schemas.dead_letters import SAFE_BYTES, DeadLetter, dead_letter_record
from ..schemas.topics import topic_of
from ..settings import Settings
from .checkpoint import MANIFEST_KEY, chunked, part_key
from .client_settings import log
from .held_partition import HeldPartition
from .outgoing import outgoing
from .placement import with_cause
from .transport import Outgoing

LEAST_BYTES = 4_096


class PlaneOutputs:
    """The records that follow from a batch or a commit; `limits_bytes` are what the topics take, by name."""

    def __init__(self, settings: Settings, limits_bytes: Mapping[str, int]) -> None:
        self._settings = settings
        self._limits_bytes = dict(limits_bytes)

    def of_effects(self, held: HeldPartition, effects: Effects) -> tuple[list[Outgoing], bool]:
        """Return the records of a batch's effects, and whether drift is among them."""
        records, has_drift = [], False
        for event in effects.events:
            record = outgoing(self._settings, event, held.partition)
            if len(record.value or b"") > self._limit(record.topic):
                log.error(
                    "an event is left out, %s takes no more than %d bytes: %r", record.topic, self._limit(record.topic), record.key
                )
                continue
            records.append(record)
            has_drift = has_drift or topic_of(event) == "drift"
        records += [self.of_letter(held.told(letter)) for letter in effects.dead_letters]
        return records, has_drift

    def of_letter(self, letter: DeadLetter) -> Outgoing:
        """Return the record of a dead letter, cut where its topic would not take it."""
        topic = f"{letter.topic}.dlq"
        letter = with_cause(letter, self._settings.topics.partitions)
        return Outgoing(topic, *dead_letter_record(letter, self._limit(topic)), partition=letter.partition)

    def of_state(self, held: HeldPartition) -> Iterator[Outgoing]:
        """Yield the records of a checkpoint, the manifest last."""
        topic = self._settings.topic("state")
        for name in held.old_parts:
            yield Outgoing(topic, part_key(name), None, partition=held.partition)
        held.old_parts = ()
        yield from self._of_parts(held, held.monitor.take_dirty())
        manifest = msgspec.json.encode(held.ledger.manifest(held.seq + 1, held.offsets))
        yield Outgoing(topic, MANIFEST_KEY, manifest, partition=held.partition)

    def of_new(self, held: HeldPartition) -> Iterator[Outgoing]:
        """Yield records of the next checkpoint ahead of it: of models that are new."""
        return self._of_parts(held, held.monitor.take_new())

    def _of_parts(self, held: HeldPartition, parts: Mapping[str, bytes | None]) -> Iterator[Outgoing]:
        topic = self._settings.topic("state")
        for name, data in parts.items():
            for piece, body in chunked(name, data, self._limit(topic), held.ledger.hashes):
                held.ledger.note(piece, body)
                yield Outgoing(topic, part_key(piece), body, partition=held.partition)

    def tighten(self, topic: str) -> bool:
        """Make what goes to a topic smaller by half after it refused a record as too large; return False where nothing is left to cut."""
        self._limits_bytes[topic] = self._limit(topic) // 2
        return self._limits_bytes[topic] >= LEAST_BYTES

    def _limit(self, topic: str) -> int:
        return self._limits_bytes.get(topic, SAFE_BYTES)
