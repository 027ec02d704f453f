"""JSON Schema of every event, made from the structs, for producers in other languages."""

from __future__ import annotations

from typing import Any

import msgspec

from . import events
from .errors import NotFound
from .topics import KIND_OF

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_types() -> tuple[type[events.Event], ...]:
    """Return every event type, sorted by name."""
    return tuple(sorted(KIND_OF, key=lambda kind: kind.__name__))


def json_schema(name: str | None = None) -> dict[str, Any]:
    """Return one schema document: any event, or the one called `name`; raises NotFound for a name that is no event."""
    kinds = event_types()
    chosen = [kind for kind in kinds if name is None or name in (kind.__name__, kind.__struct_config__.tag)]
    if not chosen:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise NotFound(f"event must be one of {known}, got {name!r} (export json-schema)")
    references, definitions = msgspec.json.schema_components(chosen, ref_template="#/$defs/{name}")
    body = {"anyOf": list(references)} if name is None else dict(references[0])
    return {"$schema": DIALECT, "title": "driftloop events" if name is None else chosen[0].__name__, **body, "$defs": definitions}
