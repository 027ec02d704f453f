"""The models of a partition: one slot each, with task, classes, feature layout and counts.

What a model is follows from its newest registration. Without one it is learned from its predictions: the first gives the features;
texts, truth values and whole numbers are classes, until a number with a fraction makes the model a regression for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from ..schemas.events import Scalar, Signature, Task
from ..schemas.layouts import Layout, layout

MAX_LEARNED_CLASSES = 500
MAX_LABEL_CLASSES = 1_000
MAX_WHOLE = 2**53
Kind = Literal["number", "text", "truth"]
COUNTS = (
    "duplicates",
    "duplicate_labels",
    "corrections",
    "retractions",
    "unknown_fields",
    "late_labels",
    "early_labels",
    "misplaced_features",
)


@dataclass(slots=True)
class Model:
    """Hold what is known of one model.

    `classes`: values in index order, None where scores announce a class that has not appeared. `reserved`: the number of scores,
    0 where unknown. `stored`: output -> the number that the join buffer keeps for it (texts are numbered in order of appearance, other
    values are themselves); `lookup`: the part of it that may be predicted. `born`: the order of its first record.
    """

    name: str
    task: Task = "classification"
    kind: Kind | None = None
    registered: bool = False
    layout: Layout | None = None
    reserved: int = 0
    classes: list[Scalar] = field(default_factory=list)
    index: dict[Scalar, int] = field(default_factory=dict)
    stored: dict[Scalar, float] = field(default_factory=dict)
    lookup: dict[Scalar, float] = field(default_factory=dict)
    born: int = 0
    by_stored: dict[float, int] = field(default_factory=dict)
    _spanned: int = -1
    _is_span: bool = False
    generation: int = 0
    first_row: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    dirty: bool = True

    @property
    def span(self) -> int:
        """Return the number of classes where each class is its own index, else 0."""
        if self._spanned != len(self.index):
            self._spanned = len(self.index)
            self._is_span = self.kind == "number" and all(value == at for value, at in self.index.items())
        return self._spanned if self._is_span else 0

    def place(self, value: Scalar, best: int | None) -> int:
        """Return the class index of `value`, a new one where it is new; `best` is the index of an output's highest score.

        Labels that no learned class is left for share the index after the last.
        """
        known = self.index.get(value)
        if known is not None:
            return known
        free = [at for at in range(self.reserved) if self.classes[at] is _FREE]
        if best is not None and best in free:
            at = best
        elif len(free) == 1:
            at = free[0]
        elif len(self.classes) >= MAX_LABEL_CLASSES:
            return len(self.classes)
        else:
            at = len(self.classes)
            self.classes.append(value)
        self.classes[at] = value
        self.index[value] = at
        self.by_stored = {}
        self.dirty = True
        return at

    def store(self, value: Scalar) -> float:
        """Return the number that the join buffer keeps for an output, a new one where a text is new."""
        found = self.stored.get(value)
        if found is None:
            found = self.stored[value] = float(len(self.stored)) if isinstance(value, str) else float(value)
            self.dirty = True
        return found


_FREE: Any = None
KIND_CODES: dict[str | None, int] = {"number": 0, "text": 1, "truth": 2, "none": 3, None: -1}


class Facts(NamedTuple):
    """Hold by slot what many rows are checked against. `lookups`: of registered classes; `indices`: of all; None for a regression."""

    kinds: NDArray[np.int64]
    reserved: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    regress: NDArray[np.bool_]
    lookups: list[dict[Scalar, float] | None]
    indices: list[dict[Scalar, int] | None]


class ModelTable:
    """Keep the models of a partition by slot, in order of their first record."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.slots: dict[str, int] = {}
        self.increments: list[tuple[int, int, str]] = []
        self._hashes: NDArray[np.uint64] = np.empty((0, 2), np.uint64)
        self._facts: Facts | None = None

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.models)

    def name(self, slot: int) -> str:
        """Return the model's name."""
        return self.models[slot].name

    def task(self, slot: int) -> Task:
        """Return classification or regression; constant for all rows of one call to the watch, see `generation`."""
        return self.models[slot].task

    def classes(self, slot: int) -> tuple[Scalar, ...]:
        """Return the class values in index order; they may grow, and grow by the batch: results must not depend on their number."""
        return tuple(f"class {at}" if value is _FREE else value for at, value in enumerate(self.models[slot].classes))

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
        found = dict(self.models[slot].counts)
        if order is not None:
            for at, where, name in self.increments:
                if where == slot and at > order:
                    found[name] -= 1
        return found

    def count(self, order: int, slot: int, name: str) -> None:
        """Count one `name` of a model at the record `order`."""
        model = self.models[slot]
        model.counts[name] += 1
        model.dirty = True
        self.increments.append((order, slot, name))

    def slot(self, name: str, order: int) -> int:
        """Return the slot of a model, a new one where the record `order` is the first to name it."""
        found = self.slots.get(name)
        if found is None:
            found = self.slots[name] = len(self.models)
            self.models.append(Model(name, born=order))
            self._facts = None
        return found

    def facts(self) -> Facts:
        """Return what holds for each model until a model is added, learned, registered or turned to a regression."""
        if self._facts is None:
            models = self.models
            sorts = [model.task == "classification" for model in models]
            self._facts = Facts(
                kinds=np.array([KIND_CODES[model.kind] for model in models], np.int64),
                reserved=np.array([model.reserved for model in models], np.int64),
                first_rows=np.array([model.first_row for model in models], np.int64),
                regress=~np.array(sorts, np.bool_),
                lookups=[model.lookup if model.registered and sort else None for model, sort in zip(models, sorts, strict=True)],
                indices=[model.index if sort else None for model, sort in zip(models, sorts, strict=True)],
            )
        return self._facts

    def hashes(self) -> NDArray[np.uint64]:
        """Return the hashes of the names, uint64 (models, 2)."""
        if len(self._hashes) != len(self.models):
            joined = b"".join(xxhash.xxh3_128_digest(model.name.encode()) for model in self.models)
            self._hashes = np.frombuffer(joined, np.uint64).reshape(-1, 2)
        return self._hashes

    def register(self, signature: Signature, slot: int, next_row: int) -> None:
        """Take over a signature. Rows before `next_row` are no longer joined where the kind of the outputs changed."""
        self._facts = None
        model = self.models[slot]
        kind = kind_of(signature.classes[0]) if signature.classes else "number"
        known = model.layout
        names = known.names if known is not None else signature.features
        changed = names != signature.features or (model.kind is not None and model.task != signature.task)
        changed |= bool(model.classes) and model.classes != list(signature.classes)
        if model.kind is not None and kind != model.kind:
            model.first_row, model.stored, changed = next_row, {}, True
        if known is None or known.names != signature.features:
            model.layout = layout(signature.features, (True,) * len(signature.features))
        model.task, model.kind, model.registered = signature.task, kind, True
        model.classes = list(signature.classes)
        model.index = {value: at for at, value in enumerate(model.classes)}
        model.reserved = len(model.classes)
        for value in model.classes:
            model.store(value)
        model.lookup = {value: model.stored[value] for value in model.classes}
        model.by_stored, model._spanned = {}, -1
        model.generation += changed
        model.dirty = True

    def learn(self, slot: int, output: Scalar, width: int, learned: Layout) -> None:
        """Take over what the first prediction of a model shows; `width` is the number of its scores, 0 without any."""
        self._facts = None
        model = self.models[slot]
        model.kind, model.layout, model.lookup = kind_of(output), learned, model.stored
        model.reserved, model.dirty = width, True
        if model.kind == "number" and not width and not is_whole(output):
            model.task = "regression"
        elif model.kind == "number" and width:
            model.classes = list(range(width))
        elif model.kind == "truth":
            model.classes = [False, True]
            model.stored.update({False: 0.0, True: 1.0})
        else:
            model.classes = [_FREE] * width
        model.index = {value: at for at, value in enumerate(model.classes) if value is not _FREE}

    def become_regression(self, slot: int) -> None:
        """Make a learned model of whole numbers a regression for good."""
        self._facts = None
        model = self.models[slot]
        model.task, model.classes, model.index, model.stored, model.lookup = "regression", [], {}, {}, {}
        model.generation += 1
        model.dirty = True

    def take_dirty(self) -> dict[int, bytes]:
        """Return the state of every model that changed since the last call, by slot."""
        found = {slot: _encode(model) for slot, model in enumerate(self.models) if model.dirty}
        for slot in found:
            self.models[slot].dirty = False
        return found

    def whole(self) -> dict[int, bytes]:
        """Return the state of every model by slot."""
        return {slot: _encode(model) for slot, model in enumerate(self.models)}

    def restore(self, parts: Iterable[tuple[int, bytes]]) -> None:
        """Take over what `take_dirty` gave, in any order of the slots; raises msgspec.DecodeError."""
        found = dict(parts)
        self._facts = None
        for slot in range(len(found)):
            model = _decode(found[slot])
            self.slots[model.name] = slot
            self.models.append(model)


def kind_of(value: object) -> Kind:
    """Return the kind of an output or label."""
    if isinstance(value, bool):
        return "truth"
    return "text" if isinstance(value, str) else "number"


def is_whole(value: object) -> bool:
    """Return True for a number that can be a class."""
    return isinstance(value, int | float) and abs(value) <= MAX_WHOLE and value == math.floor(value)


def _encode(model: Model) -> bytes:
    known = model.layout
    names = None if known is None else (known.names, known.numeric)
    return msgspec.msgpack.encode(
        (
            *(model.name, model.task, model.kind, model.registered, names, model.reserved, model.classes),
            *(list(model.stored), model.generation, model.first_row, model.counts, model.born),
        )
    )


def _decode(data: bytes) -> Model:
    name, task, kind, registered, names, reserved, classes, stored, generation, first_row, counts, born = msgspec.msgpack.decode(
        data
    )
    model = Model(name, task, kind, registered, None if names is None else layout(tuple(names[0]), tuple(names[1])), reserved)
    model.classes, model.generation, model.first_row, model.born = classes, generation, first_row, born
    model.index = {value: at for at, value in enumerate(classes) if value is not _FREE}
    for value in stored:
        model.store(value)
    model.lookup = {value: model.stored[value] for value in classes} if registered else model.stored
    model.counts.update(counts)
    model.dirty = False
    return model
