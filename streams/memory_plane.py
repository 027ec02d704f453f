"""The data plane over the memory transport, stepped by hand: same merge, same monitor; no checkpoints, as nothing outlives the process."""

from __future__ import annotations

from collections import Counter

from ..detectors.effects import Effects
from ..detectors.monitor import Monitor
from ..schemas.dead_letters import dead_letter_record
from ..schemas.records import Batch, Record, Slice
from ..schemas.topics import DATA_PLANE_INPUTS
from ..settings import Settings
from .memory import MemoryTransport
from .merge import Merge
from .outgoing import outgoing
from .placement import with_cause
from .signed_gate import SignedGate
from .transport import Outgoing

READ_RECORDS = 5_000


class MemoryPlane:
    """The monitors of all partitions of a memory transport."""

    def __init__(self, settings: Settings, transport: MemoryTransport) -> None:
        self._settings = settings
        self._transport = transport
        self._gate = SignedGate(settings)
        self._readers = {kind: transport.reader([settings.topic(kind)]) for kind in DATA_PLANE_INPUTS}
        parts = range(transport.partitions)
        self._monitors = [Monitor(settings.monitor, settings.topics.prefix, partition) for partition in parts]
        self._merges: list[Merge[Record]] = [Merge(DATA_PLANE_INPUTS, monitor.clocks) for monitor in self._monitors]

    def step(self) -> int:
        """Process all that is there; return the number of records."""
        done = 0
        while self._read():
            pass
        for partition, merge in enumerate(self._merges):
            batch = Batch(**{kind: _columns(records, times) for kind, (records, times) in merge.release().items()})
            if len(batch):
                effects = self._monitors[partition].process(batch)
                self._transport.append(self._outputs(partition, effects), self._offsets(partition, batch))
                done += len(batch)
        return done

    def close(self) -> None:
        """Let go of the topics."""
        for reader in self._readers.values():
            reader.close()

    def counters(self) -> dict[str, int]:
        """Return what the monitors of all partitions have counted since the start."""
        total: Counter[str] = Counter()
        for monitor in self._monitors:
            total.update(monitor.counters)
        return dict(total)

    def _read(self) -> int:
        """Add what is there to the merges; a topic read to its end in this step is at its end for all partitions."""
        found = 0
        for kind, reader in self._readers.items():
            records = reader.poll(READ_RECORDS, 0.0)
            found += len(records)
            at_end = not records
            if kind == "models" and not self._gate.is_open:
                records = [one for one in records if self._gate.passes(one.topic, one.key, one.value, one.headers)]
            for partition, merge in enumerate(self._merges):
                mine = [record for record in records if record.partition == partition]
                merge.add(kind, mine, [record.timestamp_ms for record in mine], at_end=at_end)
        return found

    def _outputs(self, partition: int, effects: Effects) -> list[Outgoing]:
        """Return what a batch gave, for the partition that it came from."""
        outputs = [outgoing(self._settings, event, partition) for event in effects.events]
        for letter in effects.dead_letters:
            told = with_cause(letter, self._settings.topics.partitions)
            outputs.append(Outgoing(f"{letter.topic}.dlq", *dead_letter_record(told), partition=partition))
        return outputs

    def _offsets(self, partition: int, batch: Batch) -> dict[tuple[str, str, int], int]:
        group, topic = self._settings.monitor_group, self._settings.topic
        read = {kind: getattr(batch, kind).offsets for kind in DATA_PLANE_INPUTS}
        return {(group, topic(kind), partition): offsets[-1] + 1 for kind, offsets in read.items() if offsets}


def _columns(records: list[Record], timestamps_ms: list[int]) -> Slice:
    return Slice(
        values=[record.value for record in records],
        keys=[record.key for record in records],
        offsets=[record.offset for record in records],
        timestamps_ms=timestamps_ms,
        headers=lambda index: records[index].headers,
    )
