"""The models of a partition: one slot each, with task, classes, feature layout and counts.

What a model is follows from its newest registration. Without one it is learned from its predictions: the first gives the features;
texts, truth values and whole numbers are classes, until a number with a fraction makes the model a regression for good.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..schemas.config import MonitorConfig
from ..schemas.events import Scalar, Signature, Task
from ..schemas.layouts import Layout, layout
from .columns import Ints
from .facts import Facts, grown
from .model import FREE, KIND_CODES, Model, decode_model, encode_model, free_slot, is_whole, kind_of
from .room import NOTHING, Room, Size, size_of, size_of_signature

MAX_NAMED_VERSIONS = 16
COUNTS = (
    "duplicates",
    "duplicate_labels",
    "corrections",
    "retractions",
    "unknown_fields",
    "late_labels",
    "early_labels",
    "misplaced_features",
    "unfit_scores",
    "contrary_scores",
    "answers_after_label",
)


OUTPUTS, LABELS = 0, 1
UNBOUNDED = MonitorConfig(max_total_outputs=10**9, max_models=10**9, max_total_features=10**9, max_total_classes=10**9)


class ModelTable:
    """The models of a partition by slot. The slot of a model that gave way is used again, and of its rows in the join buffer, which lie
    before `floor`, nothing is joined any more.
    """

    def __init__(self, config: MonitorConfig = UNBOUNDED) -> None:
        self.models: list[Model] = []
        self.slots: dict[str, int] = {}
        self.increments: list[tuple[int, int, str]] = []
        self.stretches: list[tuple[Ints, int, str]] = []
        self.room = Room(config)
        self._most_learned = config.max_total_outputs
        self._learned = [0, 0]
        self.floor = 0
        self._free: list[int] = []
        self._keys: dict[bytes, int] = {}
        self._gone: set[int] = set()
        self._hashes: NDArray[np.uint64] = np.empty((0, 2), np.uint64)
        self._facts: Facts | None = None
        self._stale: set[int] = set()
        self._looked_up: set[int] = set()

    def __len__(self) -> int:
        """Return the number of slots."""
        return len(self.models)

    def knows(self, key: bytes | None) -> bool:
        """Return whether the key of a record is the name of a model."""
        return key in self._keys

    def unknown(self, keys: set[bytes | None]) -> set[bytes | None]:
        """Return the keys that are the name of no model."""
        return keys.difference(self._keys)

    def name(self, slot: int) -> str:
        """Return the model's name."""
        return self.models[slot].name

    def task(self, slot: int) -> Task:
        """Return classification or regression; constant for all rows of one call to the watch, see `generation`."""
        return self.models[slot].task

    def classes(self, slot: int) -> tuple[Scalar, ...]:
        """Return the class values in index order; they may grow, and grow by the batch: results must not depend on their number."""
        return tuple(f"class {at}" if value is FREE else value for at, value in enumerate(self.models[slot].classes))

    def known_classes(self, slot: int) -> tuple[tuple[Scalar, ...], int]:
        """Return the classes, and how many of them are those of a signature (0 without one)."""
        model = self.models[slot]
        return self.classes(slot), model.reserved if model.registered else 0

    def names(self, slot: int) -> tuple[str, ...]:
        """Return the names of the features in order."""
        known = self.models[slot].layout
        return known.names if known is not None else ()

    def generation(self, slot: int) -> int:
        """Return a number that rises when the layout or the task changes. All rows of one call to the watch are of one generation."""
        return self.models[slot].generation

    def counts(self, slot: int, order: int | None = None) -> dict[str, int]:
        """Return what was counted up to the record `order`, inclusive; without it, up to the end of the present batch.

        What is told in an event needs the order: up to the end of a batch depends on how the log was cut.
        """
        found = dict.fromkeys(COUNTS, 0) | self.models[slot].counts
        if order is not None:
            for at, where, name in self.increments:
                if where == slot and at > order:
                    found[name] -= 1
            for orders, where, name in self.stretches:
                if where == slot:
                    found[name] -= int(np.count_nonzero(orders > order))
        return found

    def begin(self) -> None:
        """Begin a batch: what is counted from here on has not been told."""
        self.increments.clear()
        self.stretches.clear()

    def counted(self) -> Counter[str]:
        """Return what was counted in this batch, of all models."""
        found = Counter(name for _, _, name in self.increments)
        for orders, _, name in self.stretches:
            found[name] += len(orders)
        return found

    def count(self, order: int, slot: int, name: str) -> None:
        """Count one `name` of a model at the record `order`."""
        model = self.models[slot]
        model.counts[name] = model.counts.get(name, 0) + 1
        model.dirty = True
        self.increments.append((order, slot, name))

    def uncount(self, kept: int) -> None:
        """Take back what was counted at single records of this batch after the first `kept`."""
        for _, slot, name in self.increments[kept:]:
            self.models[slot].counts[name] -= 1
        del self.increments[kept:]

    def count_rows(self, orders: Ints, slots: Ints, name: str) -> None:
        """Count one `name` for every row: at the record `orders`, of the model `slots`."""
        for slot in np.unique(slots).tolist():
            mine = orders[slots == slot]
            model = self.models[slot]
            model.counts[name] = model.counts.get(name, 0) + len(mine)
            model.dirty = True
            self.stretches.append((mine, slot, name))

    def slot(self, name: str, order: int) -> int:
        """Return the slot of a model, a new one where the record `order` is the first to name it."""
        found = self.slots.get(name)
        if found is None:
            found = heapq.heappop(self._free) if self._free else len(self.models)
            model = Model(name, born=order, first_row=self.floor)
            if found == len(self.models):
                self.models.append(model)
            else:
                self.models[found] = model
            self._place(found)
        return found

    def _place(self, slot: int) -> None:
        name = self.models[slot].name
        self.slots[name] = self._keys[name.encode()] = slot
        self._stale.add(slot)
        self.hashes()[slot] = _hash(name)

    def remove(self, slot: int, floor: int) -> None:
        """Forget a model; rows of the join buffer before `floor` may have been its own."""
        model = self.models[slot]
        del self.slots[model.name], self._keys[model.name.encode()]
        self.room.take(NOTHING.less(model.size))
        for what, count in enumerate(model.learned):
            self._learned[what] -= count
        self.floor = floor
        self.models[slot] = free_slot(floor)
        heapq.heappush(self._free, slot)
        self._gone.add(slot)
        self._stale.add(slot)

    def may_learn(self, slot: int, what: int) -> bool:
        """Count an output (OUTPUTS) or label (LABELS) that is new to a model; return False where all models have too many."""
        if self._learned[what] >= self._most_learned:
            return False
        self._learned[what] += 1
        self.models[slot].learned[what] += 1
        return True

    def _resize(self, model: Model, size: Size) -> None:
        self.room.take(size.less(model.size))
        model.size = size

    @property
    def has_lookups(self) -> bool:
        """Return whether the outputs of any model are bound to its registered classes; what `facts` gave last is asked."""
        return bool(self._looked_up)

    def facts(self) -> Facts:
        """Return what holds for each model until a model is added, learned, registered, turned to a regression or removed."""
        facts, count = self._facts, len(self.models)
        if facts is None or len(facts.lookups) != count:
            self._stale.update(range(0 if facts is None else len(facts.lookups), count))
            facts = self._facts = grown(facts, count)
        for slot in self._stale:
            model = self.models[slot]
            sort = model.task == "classification" and not model.is_free
            facts.kinds[slot], facts.reserved[slot] = KIND_CODES[model.kind], model.reserved
            facts.first_rows[slot], facts.regress[slot] = model.first_row, not sort
            facts.others[slot], facts.binary[slot] = model.most_classes, model.is_binary
            facts.spans[slot] = model.span
            facts.lookups[slot] = model.lookup if model.registered and sort else None
            (self._looked_up.discard if facts.lookups[slot] is None else self._looked_up.add)(slot)
            facts.indices[slot] = model.index if sort else None
        self._stale.clear()
        return facts

    def hashes(self) -> NDArray[np.uint64]:
        """Return the hashes of the names, uint64 (models or more, 2)."""
        known, count = len(self._hashes), len(self.models)
        if known < count:
            grown = np.zeros((max(8, 2 * count), 2), np.uint64)
            grown[:known] = self._hashes
            for slot in range(known, count):
                grown[slot] = _hash(self.models[slot].name)
            self._hashes = grown
        return self._hashes

    def register(self, signature: Signature, slot: int, next_row: int) -> None:
        """Take over a signature. Rows before `next_row` are no longer joined where the kind of the outputs changed."""
        self._stale.add(slot)
        model = self.models[slot]
        self._resize(model, size_of_signature(signature))
        kind = kind_of(signature.classes[0]) if signature.classes else "number"
        known = model.layout
        names = known.names if known is not None else signature.features
        changed = names != signature.features
        # Behind the classes of a signature stand labels that it has not: they are none of the model's.
        classes = model.classes[: model.reserved] if model.registered else model.classes
        changed |= bool(classes) and classes != list(signature.classes)
        if model.kind is not None and (kind != model.kind or model.task != signature.task):
            # An output of another kind or task means nothing now: neither right nor wrong.
            model.first_row, model.stored, changed = next_row, {}, True
        if known is None or known.names != signature.features:
            model.layout = layout(signature.features, (True,) * len(signature.features))
        if changed or not classes:
            model.classes = list(signature.classes)
            model.index = {value: at for at, value in enumerate(model.classes)}
        model.task, model.kind, model.registered = signature.task, kind, True
        model.reserved = len(signature.classes)
        for value in signature.classes:
            model.store(value)
        model.lookup = {value: model.stored[value] for value in signature.classes}
        model.by_stored = {}
        model.generation += changed
        model.dirty = True

    def learn(self, slot: int, output: Scalar, width: int, learned: Layout) -> None:
        """Take over what the first prediction of a model shows; `width` is the number of its scores, 0 without any."""
        self._stale.add(slot)
        model = self.models[slot]
        self._resize(model, size_of(learned.width, width))
        model.kind, model.layout, model.lookup = kind_of(output), learned, model.stored
        model.reserved, model.dirty = width, True
        if model.kind == "number" and not width and not is_whole(output):
            model.task = "regression"
        elif width == 1 and model.kind != "truth":
            # Whose chance a single score is, nobody said.
            model.classes = []
        elif model.kind == "number" and width:
            model.classes = list(range(width))
        elif model.kind == "truth":
            model.classes = [False, True]
            model.stored.update({False: 0.0, True: 1.0})
        else:
            model.classes = [FREE] * width
        model.index = {value: at for at, value in enumerate(model.classes) if value is not FREE}

    def place(self, slot: int, value: Scalar, best: int | None) -> None:
        """Give a new output or label of a model its class index."""
        self._stale.add(slot)
        self.models[slot].place(value, best)

    def become_regression(self, slot: int) -> None:
        """Make a learned model of whole numbers a regression for good."""
        self._stale.add(slot)
        model = self.models[slot]
        model.task, model.classes, model.index, model.stored, model.lookup = "regression", [], {}, {}, {}
        model.generation += 1
        model.dirty = True

    def name_version(self, slot: int, version: int) -> None:
        """Remember that the models topic named a version."""
        model = self.models[slot]
        model.named = [*[one for one in model.named if one != version][1 - MAX_NAMED_VERSIONS :], version]
        model.dirty = True

    def take_dirty(self) -> dict[int, bytes | None]:
        """Return the state of every model that changed since the last call, by slot; None where it is gone."""
        found: dict[int, bytes | None] = dict.fromkeys(slot for slot in self._gone if self.models[slot].is_free)
        self._gone.clear()
        return found | self.take_some(range(len(self.models)))

    def take_some(self, slots: Iterable[int]) -> dict[int, bytes]:
        """Return the state of those of the models that changed, by slot."""
        found = {}
        for slot in slots:
            model = self.models[slot]
            if model.dirty:
                found[slot] = encode_model(model)
                model.dirty = False
        return found

    def whole(self) -> dict[int, bytes]:
        """Return the state of every model by slot."""
        return {slot: encode_model(model) for slot, model in enumerate(self.models) if not model.is_free}

    def place_state(self) -> tuple[int, int, list[int], list[int]]:
        """Return how many slots there are, the floor, the free slots, and what room was wanted."""
        return len(self.models), self.floor, sorted(self._free), list(self.room.wanted)

    def restore(self, parts: Mapping[int, bytes], places: tuple[int, int, list[int], list[int]]) -> None:
        """Take over what `take_dirty` and `place_state` gave; raises msgspec.DecodeError, KeyError where a model is missing."""
        count, self.floor, free, wanted = places
        self._free, self.room.wanted = sorted(free), Size(*wanted)
        gone = set(free)
        for slot in range(count):
            model = free_slot(self.floor) if slot in gone else decode_model(parts[slot])
            self.models.append(model)
            if not model.is_free:
                self._resize(model, size_of(0 if model.layout is None else model.layout.width, model.reserved))
                self._learned = [mine + its for mine, its in zip(self._learned, model.learned, strict=True)]
                self._place(slot)


def _hash(name: str) -> NDArray[np.uint64]:
    return np.frombuffer(xxhash.xxh3_128_digest(name.encode()), np.uint64)
