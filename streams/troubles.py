"""Troubles of the service itself: each one log line and one alert event when it begins, and again when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..schemas import codecs
from ..schemas.errors import DriftloopError, EventInvalid
from ..schemas.events import AlertFired, AlertResolved, Severity
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .outgoing import outgoing
from .transport import Reader, Sender, Transport

SERVICE = "_driftloop"  # the model of alerts that are about the service, as every event has one
PREFIX = "service-"
READ_RECORDS = 2_000
POLL_S = 0.2
FLUSH_S = 10.0
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


class TroubleBoard:
    """The troubles that are open, read from the alerts topic: what another process told is not told again, nor lost in a restart."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._reader: Reader | None = None
        self._sender: Sender | None = None
        self.open: dict[str, AlertFired] = {}

    def refresh(self) -> None:
        """Read the alerts topic up to its present end; raises BrokerUnavailable."""
        if self._reader is None:
            self._reader = self._transport.reader([self._settings.topic("alerts")])
        while True:
            records = self._reader.poll(READ_RECORDS, POLL_S)
            for record in records:
                self._fold(record)
            if not records and self._reader.at_end():
                return

    def begin(self, trouble: Trouble) -> None:
        """Log and publish a trouble unless it is open already; raises BrokerUnavailable."""
        if trouble.alert_id in self.open:
            return
        log.error("trouble: %s", trouble.summary)
        event = AlertFired(model=trouble.model, alert_id=trouble.alert_id, severity=trouble.severity, summary=trouble.summary)
        self.open[trouble.alert_id] = event
        self._send(event)

    def end(self, alert_id: str, summary: str) -> None:
        """Log and publish that a trouble is over, if it is open; raises BrokerUnavailable."""
        fired = self.open.pop(alert_id, None)
        if fired is not None:
            log.info("trouble is over: %s", summary)
            self._send(AlertResolved(model=fired.model, alert_id=alert_id, summary=summary))

    def close(self) -> None:
        """Let go of the clients."""
        for client in (self._reader, self._sender):
            if client is not None:
                client.close()
        self._reader = self._sender = None

    def _send(self, event: AlertFired | AlertResolved) -> None:
        if self._sender is None:
            self._sender = self._transport.sender()
        self._sender.send(outgoing(self._settings, event))
        self._sender.flush(FLUSH_S)

    def _fold(self, record: Record) -> None:
        try:
            event = codecs.decode(record.value, KINDS["alerts"].carries, record.topic)
        except EventInvalid:
            return
        if isinstance(event, AlertFired) and event.alert_id.startswith(PREFIX):
            self.open[event.alert_id] = event
        elif isinstance(event, AlertResolved):
            self.open.pop(event.alert_id, None)


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
