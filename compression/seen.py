"""What adoption made of a model file, what its trial saw, and whether it is what a signature promises.

Without onnx: serving processes import this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ..schemas.errors import ArtifactInvalid, Conflict
from ..schemas.events import Scalar, Signature
from ..schemas.plain_text import shown
from .graph_signature import GraphSignature, check_columns, check_signature

ROWS = (1, 11)


class Adoption(msgspec.Struct, frozen=True):
    """What is asked of adoption: an activation behind the scores, and the path of the file, so that weights beside it are packed in."""

    squash: str = ""
    beside: str | None = None


PLAIN = Adoption()


@dataclass(frozen=True, slots=True)
class Adopted:
    """A model file as it can be registered; `notes` say what was changed, `classes` those that it names, in the order of the scores.

    `features`: names of the columns where the file names them. `categories`: the texts of those that are no numbers, by their codes.
    """

    onnx: bytes = field(repr=False)
    notes: tuple[str, ...] = ()
    classes: tuple[Scalar, ...] = ()
    features: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def check_classes(self, given: tuple[Scalar, ...]) -> None:
        """Raise Conflict where the file names its classes, and `given` are others or in another order; places 0, 1, ... may be named."""
        if not self.classes or given == self.classes:
            return
        if self.classes == tuple(range(len(given))):
            return
        names = ",".join(map(str, self.classes))
        raise Conflict(f"classes must be those that the model file names, {shown(names)}, got {shown(','.join(map(str, given)))}")


class OutputSeen(msgspec.Struct, frozen=True):
    """An output as it came: rows and numbers for each batch of ROWS, whether any row of it was finite, and all that were are chances."""

    name: str
    rows: tuple[int, ...]
    numbers: tuple[int, ...]
    is_number: bool
    finite: bool
    chances: bool = False


class Seen(msgspec.Struct, frozen=True):
    """What a trial saw: the graph's own word, and its outputs."""

    graph: GraphSignature
    outputs: tuple[OutputSeen, ...]


def check_seen(seen: Seen, signature: Signature) -> None:
    """Raise ArtifactInvalid where a model that was tried does not take and give what `signature` promises."""
    check_signature(seen.graph, signature)
    output = seen.graph.output(signature.output_name)
    found = next(one for one in seen.outputs if one.name == signature.output_name)
    where = f"model output {shown(found.name)}"
    if not found.is_number:
        raise ArtifactInvalid(f"{where} must hold numbers")
    if found.rows != ROWS:
        raise ArtifactInvalid(f"{where} must have a row for each row given, got {list(found.rows)} for {list(ROWS)}")
    for rows, numbers in zip(ROWS, found.numbers, strict=True):
        check_columns(output, numbers // rows, signature)
    if not found.finite:
        raise ArtifactInvalid(f"{where} must be finite for some row of ordinary numbers, got none that is")
