"""Proposals: each version that waits for a person's word is an alert, which ends with the word, with its time, or when it is overtaken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from ..schemas.events import AlertFired, ModelProposed
from ..schemas.plain_text import one_line
from ..settings import Settings
from .alert_board import AlertBoard
from .challengers import Challenger
from .registry import POLL_RECORDS, POLL_S, Registry
from .signing import verifier_of
from .transport import Reader, Transport

PREFIX = "proposal-"
log = logging.getLogger("driftloop.service")


class Proposals:
    """The proposed versions of all models, and their alerts."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._board = AlertBoard(settings, transport, PREFIX)
        self._reader: Reader | None = None
        self._registry = Registry(verifier_of(settings.signing))

    def look(self, now_s: float) -> None:
        """Publish which proposals wait and what became of the others; raises BrokerUnavailable."""
        self._read()
        self._board.refresh()
        for one in self._all():
            alert_id, fate = alert_of(one.event), one.fate(now_s)
            if fate:
                self._board.resolve(
                    alert_id, f"{_named(one.event)} waits no more: {one_line(fate)}", "user" if one.decided else "policy"
                )
            elif alert_id not in self._board.ended:
                self._tell(one.event)

    def close(self) -> None:
        """Let go of the clients; what was read is read again."""
        self._board.close()
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._registry = Registry(verifier_of(self._settings.signing))

    def _read(self) -> None:
        if self._reader is None:
            self._reader = self._transport.reader([self._settings.topic("models")])
        while not self._reader.at_end():
            for record in self._reader.poll(POLL_RECORDS, POLL_S):
                self._registry.apply_record(record)

    def _all(self) -> Iterator[Challenger]:
        for model in self._registry.models:
            yield from self._registry.challengers(model).all

    def _tell(self, event: ModelProposed) -> None:
        until = datetime.fromtimestamp(event.expires_at, UTC)
        summary = (
            f"{_named(event)} is proposed until {until:%Y-%m-%d %H:%M} UTC: {one_line(event.reason)};"
            f" driftloop model approve {one_line(event.model)} {event.version}, or reject"
        )
        fired = AlertFired(model=event.model, alert_id=alert_of(event), severity="medium", summary=summary)
        if self._board.fire(fired):
            log.info("%s", summary)


def alert_of(event: ModelProposed) -> str:
    """Return the id of a proposal's alert."""
    return f"{PREFIX}{event.job_id or f'{event.model}-{event.version}'}"


def _named(event: ModelProposed) -> str:
    return f"{one_line(event.model)}: version {event.version}"
