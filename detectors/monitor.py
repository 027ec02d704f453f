"""The monitor of one partition: a batch of records in, events and dead letters out, the same however the log is cut into batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..schemas.config import MonitorConfig
from ..schemas.events import Event, ModelPromoted, ModelRegistered, ModelRolledBack
from ..schemas.records import Batch
from ..schemas.topics import DATA_PLANE_INPUTS, topic_name
from .answered import Answered
from .bisection import bisected
from .columns import FeatureGroup, Floats, InputRows, Ints
from .disputes import Disputes, Rules
from .early_labels import EarlyLabels
from .effects import Effects
from .evictions import Evictions
from .inspection import Inspector
from .intake import Intake
from .join import Joiner
from .model_table import ModelTable
from .monitor_parts import MonitorParts
from .outputs import Fresh, store_outputs
from .over_limit import LimitNotes, OverLimit
from .pending import ROW_BYTES, Pending
from .pieces import Labels, Piece, Predictions, joined_labels, joined_predictions
from .room import size_of_signature
from .snapshot import pack_parts, unpack_parts
from .stream_time import START_MS, StreamTime
from .watch import Watch

# The columns of more records than these leave the cache of a CPU before the last step over them; of many models each step has
# costs for each model, which weigh more.
SPAN_RECORDS = 5_000
SPAN_RECORDS_PER_MODEL = 50
# So many models' first state at once: about 15 ms.
NEW_MODELS = 256


class Monitor:
    """The monitor of one partition: it admits, joins and watches; `prefix` names the topics in positions and dead letters."""

    def __init__(self, config: MonitorConfig, prefix: str, partition: int) -> None:
        self.config = config
        self.prefix = prefix
        self.partition = partition
        self.clocks = {kind: StreamTime() for kind in DATA_PLANE_INPUTS}
        self.counters: dict[str, int] = {}
        self.table = ModelTable(config)
        self.order = 0
        self.now_ms = START_MS
        rules = Rules(round(config.join_window_s * 1000), min(config.max_pending, config.max_pending_bytes // ROW_BYTES))
        self.buffer = Pending()
        self.early = EarlyLabels(round(config.early_label_s * 1000), config.max_early_labels, config.max_early_bytes)
        self.limits = LimitNotes()
        self.notices: list[str] = []
        self._inspector = Inspector(config, self.table, partition, self.limits)
        self._intake = Intake(self.table, self._inspector, config.max_value_bytes)
        self._disputes = Disputes(rules, self.buffer, self.early, self._inspector)
        self._joiner = Joiner(rules, self.table, self.buffer, self.early)
        self._faults = self._joiner.faults
        self.watch = Watch(config, prefix, partition, self.table, self._faults)
        self._evictions = Evictions(config, (self.table, self.watch.roster, self.buffer), self._intake.forget)
        self._parts = MonitorParts(self)

    @classmethod
    def restore(cls, config: MonitorConfig, prefix: str, partition: int, parts: Mapping[str, bytes]) -> Monitor:
        """Return the monitor whose parts these are, a new one where there are none; raises SnapshotInvalid."""
        monitor = cls(config, prefix, partition)
        monitor._parts.restore(parts)
        return monitor

    @classmethod
    def from_snapshot(cls, config: MonitorConfig, prefix: str, partition: int, data: bytes) -> Monitor:
        """Return the monitor that gave `snapshot`; raises SnapshotInvalid."""
        return cls.restore(config, prefix, partition, unpack_parts(data))

    def take_dirty(self) -> dict[str, bytes | None]:
        """Return the parts of the state that changed since the last call, each at most 900 kB; None deletes a part."""
        return self._parts.take_dirty()

    def take_new(self) -> dict[str, bytes | None]:
        """Return parts of the state of models that were never saved, few enough that no batch waits for them long.

        Taken after each batch they leave the next `take_dirty` little to do: a flood of names would else make one commit take long.
        """
        return self._parts.take_new(NEW_MODELS)

    def snapshot(self) -> bytes:
        """Return the whole state as one."""
        return pack_parts(self._parts.whole())

    @property
    def stream_time_ms(self) -> dict[str, int]:
        """Return the stream time of each input topic."""
        return {kind: clock.time_ms for kind, clock in self.clocks.items()}

    def resume(self, clocks: Mapping[str, Sequence[int]], order: int, now_ms: int, counters: dict[str, int]) -> None:
        """Go on from a restored clock, once the table is restored."""
        self.clocks = {kind: StreamTime(state) for kind, state in clocks.items()}
        self.order, self.now_ms, self.counters = order, now_ms, counters
        self._intake.know_all()

    @property
    def answered(self) -> Answered:
        """Return the labels that came before their first prediction."""
        return self._disputes.answered

    @property
    def pending(self) -> int:
        """Return the number of predictions that wait for their label."""
        return self.buffer.waiting

    def process(self, batch: Batch) -> Effects:
        """Take in the records of a batch and return what follows from them."""
        self.table.begin()
        counts: Counter[str] = Counter(models=len(batch.models), predictions=len(batch.predictions), labels=len(batch.labels))
        events: list[Event] = []
        first, before_ms = self.order, self.now_ms
        models, predictions, labels = self._merge(batch)
        start = 0, 0
        registrations = {order: at for at, order in enumerate(models.order.tolist())}
        times_ms, _ = self._disputes.clock
        sweeps = {first + at for at in self._evictions.due(batch, times_ms, before_ms)}
        spans = range(first, self.order, self._span_records(len(batch)))
        for order in sorted({*registrations, *sweeps, *spans, self.order}):
            stop = int(np.searchsorted(predictions.order, order)), int(np.searchsorted(labels.order, order))
            self._span(predictions.cut(start[0], stop[0]), labels.cut(start[1], stop[1]), events, counts)
            start = stop
            if order in sweeps or order in registrations:
                # What expired before goes while the models are still known.
                self._disputes.expire(before_ms if order == first else int(times_ms[order - first - 1]))
            if order in sweeps:
                gone = self._evictions.sweep(int(times_ms[order - first]))
                if gone:
                    counts["models_evicted"] += gone
            if order in registrations:
                self._register(models, registrations[order], counts)
        self._disputes.expire(self.now_ms)
        self.buffer.age(self.now_ms - self._disputes.rules.window_ms, self._disputes.rules.max_rows)
        return self._effects(events, counts)

    def _span_records(self, records: int) -> int:
        # Spans of one size: a small one at the end would cost nearly as many calls as the others.
        limit = max(SPAN_RECORDS, SPAN_RECORDS_PER_MODEL * len(self.table))
        return max(1, -(-records // max(1, round(records / limit))))

    def _merge(self, batch: Batch) -> tuple[Piece, Piece, Piece]:
        """Return the slices as pieces in merged order: by stream time, then models, predictions, labels."""
        sources = {"models": batch.models, "predictions": batch.predictions, "labels": batch.labels}
        stamps = [np.fromiter(source.timestamps_ms, np.int64, len(source)) for source in sources.values()]
        times = [self.clocks[kind].advance(stamps_ms) for kind, stamps_ms in zip(sources, stamps, strict=True)]
        joined = np.concatenate(times)
        # A stable sort takes what comes first at equal time, and merges runs that are in order as they are.
        places = joined.argsort(kind="stable")
        orders = np.empty(len(places), np.int64)
        orders[places] = np.arange(self.order, self.order + len(places))
        late = np.maximum(joined, self.now_ms)
        merged = late[places]
        self._disputes.clock = merged, self.order
        made, start = [], 0
        for (kind, source), stamps_ms in zip(sources.items(), stamps, strict=True):
            part = slice(start, start + len(source))
            made.append(Piece(topic_name(self.prefix, kind), source, 0, len(source), orders[part], late[part], stamps_ms))
            start = part.stop
        self.order += len(batch)
        if len(merged):
            self.now_ms = int(merged[-1])
        return made[0], made[1], made[2]

    def places(self, batch: Batch) -> dict[str, Ints]:
        """Return where each record of a batch comes in merged order, from 0; nothing is taken in."""
        sources = {"models": batch.models, "predictions": batch.predictions, "labels": batch.labels}
        times = [
            StreamTime(self.clocks[kind].state).advance(np.fromiter(source.timestamps_ms, np.int64, len(source)))
            for kind, source in sources.items()
        ]
        order = np.concatenate(times).argsort(kind="stable")
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        ends = np.cumsum([len(source) for source in sources.values()])
        return dict(zip(sources, np.split(places, ends[:-1]), strict=True))

    def _register(self, models: Piece, at: int, counts: Counter[str]) -> None:
        """Take a model event; the registration of a version that was taken before must not set the classes back, and is counted."""
        event = self._inspector.model_event(models, at)
        known = None if event is None else self.table.slots.get(event.model)
        if isinstance(event, ModelRegistered):
            if known is not None and not self.table.models[known].may_take(event.version):
                counts["registrations_repeated"] += 1
                return
            new = size_of_signature(event.signature)
            more = new if known is None else new.less(self.table.models[known].size)
            if not self._evictions.make_room(more, int(models.time_ms[at]), -1 if known is None else known):
                self._inspector.refuse_over(models, at, self.table.room.refusal(event.model, more))
                return
            known = self.table.slot(event.model, int(models.order[at]))
            self.table.register(event.signature, known, self.buffer.head)
            self.table.models[known].take(event.version)
            self.watch.roster.renew(known)
            self._intake.know(event.model)
        if known is not None and isinstance(event, ModelRegistered | ModelPromoted | ModelRolledBack):
            self.table.name_version(known, event.version)

    def _span(self, predictions: Piece, labels: Piece, events: list[Event], counts: Counter[str]) -> None:
        """Take records between two registrations."""
        if not len(predictions.order) and not len(labels.order):
            return
        sound = bisected(self._intake.predictions, joined_predictions, predictions, self._inspector)
        rows, stored, fresh = store_outputs(sound, self.table, self._inspector, predictions)
        arrived = bisected(self._intake.labels, joined_labels, labels, self._inspector)
        self._disputes.look_at(predictions, labels)
        for order, slot in fresh.switches:
            before, label_before = rows.order < order, arrived.order < order
            self._part((rows.take(before), stored[before]), arrived.take(label_before), _until(fresh, order), (events, counts))
            rows, stored, arrived = rows.take(~before), stored[~before], arrived.take(~label_before)
            self.table.become_regression(slot)
            self.watch.roster.renew(slot)
        self._part((rows, stored), arrived, fresh, (events, counts))
        counts["admitted"] -= len(self.watch.refused)
        for order, setting, problem in self.watch.refused:
            at = predictions.start + int(predictions.order.searchsorted(order))
            self._inspector.refuse_over(predictions, at, OverLimit(setting, problem))
        self.watch.refused.clear()

    def _part(
        self, inputs: tuple[Predictions, Floats], labels: Labels, fresh: Fresh, into: tuple[list[Event], Counter[str]]
    ) -> None:
        """Take sound rows during which no model changes its task or layout."""
        rows = inputs[0]
        if not len(rows) and not len(labels):
            return
        new, joined = self._joiner.join(inputs, labels, self._disputes)
        self._parts.buffer.touch(joined.rows)
        if self._disputes.superseded:
            self._parts.buffer.touch(np.array(self._disputes.superseded, np.int64))
        pairs = self._joiner.pairs(joined, fresh, self._disputes.blame)
        fresh.values = []
        admitted = rows if new.all() else rows.take(new)
        events, counts = into
        counts["admitted"] += len(admitted)
        counts["joined"] += len(pairs.order)
        events += [event for _, event in self.watch.observe(_input_rows(admitted), pairs)]

    def _effects(self, events: list[Event], counts: Counter[str]) -> Effects:
        refusals = sorted(self._inspector.refusals, key=lambda refusal: refusal[:2])
        self._inspector.refusals.clear()
        letters = [letter for _, _, letter in refusals]
        counts["dead_lettered"] = len(letters)
        counts.update(f"dead_lettered_{letter.disposition}" for letter in letters)
        counts.update(self.table.counted())
        if self._faults:
            counts["watch_faults"] = len(self._faults)
            self.notices += dict.fromkeys(
                f"a fault in the watch of {fault.model} was contained, {fault.part}: {fault.message}" for fault in self._faults
            )
            self._faults.clear()
        for name, count in counts.items():
            self.counters[name] = self.counters.get(name, 0) + count
        notices = self.notices + self.limits.take(*self._disputes.clock)
        self.notices = []
        return Effects(events, letters, dict(counts), notices)


def _until(fresh: Fresh, order: int) -> Fresh:
    """Take the values before `order` out of `fresh`."""
    before = [one for one in fresh.values if one[0] < order]
    fresh.values = [one for one in fresh.values if one[0] >= order]
    return Fresh(before, [])


def _input_rows(rows: Predictions) -> InputRows:
    groups = [
        FeatureGroup(names=layout.names, rows=at, values=values, numeric=np.array(layout.numeric, np.bool_))
        for layout, at, values in rows.groups
    ]
    return InputRows(
        order=rows.order,
        model=rows.slot,
        version=rows.version,
        offset=rows.offset,
        ts=rows.ts,
        time_ms=rows.time_ms,
        confidence=rows.confidence,
        latency_ms=rows.latency_ms,
        groups=groups,
    )
