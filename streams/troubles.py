"""Troubles of the service itself: each one log line and one alert event when it begins, and again when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..schemas.errors import DriftloopError
from ..schemas.events import AlertFired, Severity
from ..settings import Settings
from .alert_board import AlertBoard
from .transport import Transport

SERVICE = "_driftloop"  # the model of alerts that are about the service, as every event has one
PREFIX = "service-"
log = logging.getLogger("driftloop.service")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A state of the service that a person must know of; `name` is the same for as long as it lasts, and for every process."""

    name: str
    summary: str
    severity: Severity = "high"
    model: str = SERVICE

    @property
    def alert_id(self) -> str:
        """Return the id of its alert."""
        return PREFIX + self.name


class TroubleBoard(AlertBoard):
    """The troubles that are open, each with its lines in the log."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        super().__init__(settings, transport, PREFIX)

    def begin(self, trouble: Trouble) -> None:
        """Log and publish a trouble unless it is open already; raises BrokerUnavailable."""
        if trouble.alert_id in self.open:
            return
        log.error("trouble: %s", trouble.summary)
        self.fire(AlertFired(model=trouble.model, alert_id=trouble.alert_id, severity=trouble.severity, summary=trouble.summary))

    def end(self, alert_id: str, summary: str) -> None:
        """Log and publish that a trouble is over, if it is open; raises BrokerUnavailable."""
        if alert_id in self.open:
            log.info("trouble is over: %s", summary)
            self.resolve(alert_id, summary)


def announce(settings: Settings, transport: Transport, troubles: Iterable[Trouble]) -> None:
    """Begin troubles from a place that keeps no board; a broker that does not answer is logged, never raised."""
    with _board(settings, transport) as board:
        for trouble in troubles:
            board.begin(trouble)


def settle(settings: Settings, transport: Transport, over: Mapping[str, str]) -> None:
    """End troubles by alert id, each with what is to be said of it, as `announce` begins them."""
    with _board(settings, transport) as board:
        for alert_id, summary in over.items():
            board.end(alert_id, summary)


@contextmanager
def _board(settings: Settings, transport: Transport) -> Iterator[TroubleBoard]:
    board = TroubleBoard(settings, transport)
    try:
        board.refresh()
        yield board
    except DriftloopError as problem:
        log.warning("troubles could not be published: %s", problem)
    finally:
        board.close()
