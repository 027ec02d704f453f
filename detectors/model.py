"""A model: what is known of its task, classes and features, as a value and as bytes of the state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ..schemas.events import Scalar, Task
from ..schemas.layouts import Layout, layout
from .room import NOTHING, Size

MAX_LEARNED_CLASSES = 500
MAX_LABEL_CLASSES = 1_000
MAX_FOREIGN_CLASSES = 100
MAX_WHOLE = 2**53
MAX_TAKEN = 64
FIELDS = 16  # of a model's state
Kind = Literal["number", "text", "truth"]


@dataclass(slots=True)
class Model:
    """What is known of one model.

    `classes`: values in index order, None where scores announce a class that has not appeared; behind those of a signature follow
    labels that it has not, which no output can meet. `reserved`: the number of scores, 0 where unknown. `stored`: output -> the number
    that the join buffer keeps for it (texts are numbered in order of appearance, other values are themselves); `lookup`: the part of it
    that may be predicted. `born`: the order of its first record. `named`: the versions that the models topic named, the newest last.
    `is_free`: a slot whose model is gone.
    `learned`: how many outputs, and how many labels, became known without a registration. `taken`: the versions whose registration
    counted, ascending, at most MAX_TAKEN.
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
    generation: int = 0
    first_row: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    dirty: bool = True
    named: list[int] = field(default_factory=list)
    size: Size = NOTHING
    is_free: bool = False
    learned: list[int] = field(default_factory=lambda: [0, 0])
    taken: list[int] = field(default_factory=list)

    @property
    def most_classes(self) -> int:
        """Return how many classes can have an index of their own; what lies beyond shares this one."""
        return self.reserved + MAX_FOREIGN_CLASSES if self.registered else MAX_LABEL_CLASSES

    @property
    def is_binary(self) -> bool:
        """Return whether the model is known to have two classes, so that a single score is the chance of the second."""
        return self.reserved == 2 if self.registered else self.kind == "truth"

    @property
    def span(self) -> int:
        """Return the number of classes where each is its own index, else 0."""
        is_span = self.kind == "number" and all(value == at for value, at in self.index.items())
        return len(self.index) if is_span and len(self.index) == len(self.classes) else 0

    def place(self, value: Scalar, best: int | None) -> int:
        """Return the class index of `value`, a new one where it is new; `best` is the index of an output's highest score.

        Labels that no class is left for share the index after the last.
        """
        known = self.index.get(value)
        if known is not None:
            return known
        free = [at for at, taken in enumerate(self.classes[: self.reserved]) if taken is FREE]
        if best is not None and best in free:
            at = best
        elif len(free) == 1:
            at = free[0]
        elif len(self.classes) >= self.most_classes:
            return self.most_classes
        else:
            at = len(self.classes)
            self.classes.append(value)
        self.classes[at] = value
        self.index[value] = at
        self.by_stored = {}
        self.dirty = True
        return at

    def may_take(self, version: int) -> bool:
        """Return whether the registration of a version counts: not one that was taken before, nor one too old to tell."""
        return version not in self.taken and (len(self.taken) < MAX_TAKEN or version > self.taken[0])

    def take(self, version: int) -> None:
        """Note that the registration of a version counted."""
        self.taken = sorted((*self.taken, version))[-MAX_TAKEN:]
        self.dirty = True

    def store(self, value: Scalar) -> float:
        """Return the number that the join buffer keeps for an output, a new one where a text is new."""
        found = self.stored.get(value)
        if found is None:
            found = self.stored[value] = float(len(self.stored)) if isinstance(value, str) else float(value)
            self.dirty = True
        return found


FREE: Any = None
KIND_CODES: dict[str | None, int] = {"number": 0, "text": 1, "truth": 2, "none": 3, None: -1}


def free_slot(floor: int) -> Model:
    """Return what stands in a slot whose model is gone."""
    return Model("", first_row=floor, dirty=False, is_free=True)


def kind_of(value: object) -> Kind:
    """Return the kind of an output or label."""
    if isinstance(value, bool):
        return "truth"
    return "text" if isinstance(value, str) else "number"


def is_whole(value: object) -> bool:
    """Return True for a number that can be a class."""
    return isinstance(value, int | float) and abs(value) <= MAX_WHOLE and value == math.floor(value)


def encode_model(model: Model) -> bytes:
    """Return a model as bytes of the state."""
    known = model.layout
    names = None if known is None else (known.names, known.numeric)
    # Outputs that are classes are told by their index: texts need not stand there twice.
    places = [model.index.get(value, -1) for value in model.stored]
    others = [value for value, at in zip(model.stored, places, strict=True) if at < 0]
    return msgspec.msgpack.encode(
        (
            *(model.name, model.task, model.kind, model.registered, names, model.reserved, model.classes),
            *(places, others, model.generation, model.first_row, model.counts, model.born, model.named),
            model.learned,
            model.taken,
        )
    )


def decode_model(data: bytes) -> Model:
    """Return the model of these bytes; raises msgspec.DecodeError."""
    said = msgspec.msgpack.decode(data)
    # An earlier driftloop did not say which registrations it took.
    *first, places, others, generation, first_row, counts, born, named, learned, taken = (
        said if len(said) == FIELDS else (*said, [])
    )
    name, task, kind, registered, names, reserved, classes = first
    model = Model(name, task, kind, registered, None if names is None else layout(tuple(names[0]), tuple(names[1])), reserved)
    model.classes, model.generation, model.first_row, model.born, model.named = classes, generation, first_row, born, named
    model.learned, model.taken = learned, taken
    model.index = {value: at for at, value in enumerate(classes) if value is not FREE}
    rest = iter(others)
    for at in places:
        model.store(classes[at] if at >= 0 else next(rest))
    model.lookup = {value: model.stored[value] for value in classes[:reserved]} if registered else model.stored
    model.counts = counts
    model.dirty = False
    return model
