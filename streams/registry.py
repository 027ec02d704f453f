"""The model registry: a fold over the models topic, which keeps its whole history."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ..schemas.codecs import encode_json
from ..schemas.errors import Conflict, EventInvalid
from ..schemas.events import MAX_VERSION, ModelEvent, ModelPromoted, ModelProposed, ModelRegistered, ModelRolledBack
from ..schemas.plain_text import one_line
from ..schemas.records import Record
from ..settings import Settings
from .challengers import Challengers
from .fold_guard import FoldGuard
from .signing import FIRST, Verifier, verifier_of
from .transport import Outgoing, Transport

POLL_S = 0.2
POLL_RECORDS = 1_000

log = logging.getLogger("driftloop.registry")


@dataclass(slots=True)
class _Model:
    """One model: its versions, the line of champions up to the present one, and every event in order."""

    versions: dict[int, ModelRegistered] = field(default_factory=dict)
    champions: list[int] = field(default_factory=list)
    history: list[ModelEvent] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    challengers: Challengers = field(default_factory=Challengers)


class Registry:
    """Every model's versions and champion. Events may repeat: what a retried job says again changes nothing.

    With a `verifier` a record counts only if it is signed and follows the last one of its model that counted.
    """

    def __init__(self, verifier: Verifier | None = None) -> None:
        self._models: dict[str, _Model] = {}
        self._verifier = verifier
        self._heads: dict[bytes | None, str] = {}
        self._marks: set[str] = set()
        self._guard = FoldGuard(log)

    @property
    def models(self) -> list[str]:
        """Return the names of all models, sorted."""
        return sorted(self._models)

    def apply(self, event: ModelEvent) -> bool:
        """Take in one event; return False if it repeats an earlier one or contradicts what is known."""
        model = self._models.setdefault(event.model, _Model())
        # A job's events carry its id, so that the same bytes are the same fact; a person may well say the same thing twice.
        if getattr(event, "job_id", None) is not None:
            value = encode_json(event)
            if value in model.seen:
                return False
            model.seen.add(value)
        changed = self._fold(model, event)
        if changed:
            model.history.append(event)
        return changed

    def apply_record(self, record: Record) -> bool:
        """Take in a record of the models topic; return False where it repeats another, or is no event, and is passed over."""
        changed: list[bool] = []
        try:
            self._check_signature(record)
        except EventInvalid as problem:
            self._guard.refuse(problem)
            return False
        refused = self._guard.take(record, ModelEvent, lambda event: changed.append(self.apply(event)))
        return refused is None and changed[0]

    def head(self, key: bytes | None) -> str:
        """Return the mark of the last signed record of a key, which the next one has to name."""
        return self._heads.get(key, FIRST)

    def counted(self, record: Outgoing) -> bool:
        """Return whether a signed record is one of those that counted."""
        if self._verifier is None:
            return True
        try:
            return self._verifier.check(record.topic, record.key, record.value, record.headers).mark in self._marks
        except EventInvalid:
            return False

    @property
    def skipped(self) -> dict[str, int]:
        """Return how many records were passed over, by disposition."""
        return dict(self._guard.skipped)

    def champion(self, model: str) -> ModelRegistered | None:
        """Return the version that serves now, or None before the first promotion."""
        known = self._models.get(model)
        return None if known is None or not known.champions else known.versions[known.champions[-1]]

    def previous_champion(self, model: str) -> ModelRegistered | None:
        """Return the version that served before the champion, or None."""
        known = self._models.get(model)
        return None if known is None or len(known.champions) < 2 else known.versions[known.champions[-2]]

    def challengers(self, model: str) -> Challengers:
        """Return the versions that were proposed."""
        known = self._models.get(model)
        return Challengers() if known is None else known.challengers

    def versions(self, model: str) -> list[ModelRegistered]:
        """Return all registered versions, oldest first."""
        known = self._models.get(model)
        return [] if known is None else [known.versions[version] for version in sorted(known.versions)]

    def history(self, model: str) -> list[ModelEvent]:
        """Return every event that counted, in order."""
        known = self._models.get(model)
        return [] if known is None else list(known.history)

    def next_version(self, model: str) -> int:
        """Return the number for the next registration: after the highest one that leaves room for it, from 1."""
        known = self._models.get(model)
        taken = {0} if known is None else {0, *known.versions}
        return next(version + 1 for version in sorted(taken, reverse=True) if version + 1 not in taken and version < MAX_VERSION)

    def rollback(self, model: str, reason: str = "rollback") -> ModelRolledBack:
        """Return the event that makes the previous champion serve again; raises Conflict where there is none."""
        champion, previous = self.champion(model), self.previous_champion(model)
        if champion is None or previous is None:
            raise Conflict(f"model must have had an earlier champion to go back to, got none ({model})")
        return ModelRolledBack(
            model=model, version=previous.version, digest=previous.digest, from_version=champion.version, reason=reason
        )

    def _check_signature(self, record: Record) -> None:
        if self._verifier is None:
            return
        where = f"{record.topic}/{record.partition}/{record.offset}"
        signed = self._verifier.check(record.topic, record.key, record.value, record.headers)
        if signed.previous != self.head(record.key):
            raise EventInvalid(
                "invalid", f"signed model event must follow the last one of its model, got one repeated or late ({where})"
            )
        self._heads[record.key] = signed.mark
        self._marks.add(signed.mark)

    def _fold(self, model: _Model, event: ModelEvent) -> bool:
        if isinstance(event, ModelRegistered):
            known = model.versions.get(event.version)
            if known is not None and known.digest != event.digest:
                log.warning(
                    "%s version %d is registered already with another artifact: the first one stays",
                    one_line(event.model),
                    event.version,
                )
            if known is None:
                model.versions[event.version] = event
            return known is None
        if isinstance(event, ModelPromoted | ModelProposed | ModelRolledBack):
            registered = model.versions.get(event.version)
            if registered is None or registered.digest != event.digest:
                log.warning(
                    "%s version %d is not registered with that artifact: it does not serve", one_line(event.model), event.version
                )
                return False
        if isinstance(event, ModelRolledBack) and not _roll_back(model, event):
            return False
        if isinstance(event, ModelPromoted | ModelProposed) and model.champions and model.champions[-1] == event.version:
            return False
        if isinstance(event, ModelPromoted):
            model.champions.append(event.version)
        return model.challengers.fold(event)


def read_registry(transport: Transport, settings: Settings) -> Registry:
    """Return the registry as the models topic tells it now; raises NotFound without the topic, BrokerUnavailable."""
    registry = Registry(verifier_of(settings.signing))
    reader = transport.reader([settings.topic("models")])
    try:
        while not reader.at_end():
            for record in reader.poll(POLL_RECORDS, POLL_S):
                registry.apply_record(record)
    finally:
        reader.close()
    return registry


def _roll_back(model: _Model, event: ModelRolledBack) -> bool:
    # Meant for a champion that has been replaced meanwhile, or said twice: either way it has no object any more.
    if not model.champions or model.champions[-1] != event.from_version:
        return False
    model.champions.pop()
    while model.champions and event.version in model.champions and model.champions[-1] != event.version:
        model.champions.pop()
    if not model.champions or model.champions[-1] != event.version:
        model.champions.append(event.version)
    return True
