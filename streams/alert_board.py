"""The alerts of one prefix, as the alerts topic tells them: what another process told is not told again, nor lost in a restart."""

from __future__ import annotations

from typing import Literal

from ..schemas import codecs
from ..schemas.errors import EventInvalid
from ..schemas.events import AlertFired, AlertResolved
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .outgoing import outgoing
from .transport import Reader, Sender, Transport

READ_RECORDS = 2_000
POLL_S = 0.2
FLUSH_S = 10.0


class AlertBoard:
    """The alerts whose ids begin with `prefix`: `open` by id, `ended` the ids of those that are over."""

    def __init__(self, settings: Settings, transport: Transport, prefix: str) -> None:
        self._settings = settings
        self._transport = transport
        self._prefix = prefix
        self._reader: Reader | None = None
        self._sender: Sender | None = None
        self.open: dict[str, AlertFired] = {}
        self.ended: set[str] = set()

    def refresh(self) -> None:
        """Read the alerts topic up to its present end; raises BrokerUnavailable."""
        if self._reader is None:
            self._reader = self._transport.reader([self._settings.topic("alerts")])
        while not self._reader.at_end():
            for record in self._reader.poll(READ_RECORDS, POLL_S):
                self._fold(record)

    def fire(self, event: AlertFired) -> bool:
        """Publish an alert unless it is open already, and return whether it was not; raises BrokerUnavailable."""
        if event.alert_id in self.open:
            return False
        self.open[event.alert_id] = event
        self.ended.discard(event.alert_id)
        self._send(event)
        return True

    def resolve(self, alert_id: str, summary: str, resolved_by: Literal["policy", "user"] = "policy") -> bool:
        """Publish that an alert is over if it is open, and return whether it was; raises BrokerUnavailable."""
        fired = self.open.pop(alert_id, None)
        if fired is None:
            return False
        self.ended.add(alert_id)
        self._send(AlertResolved(model=fired.model, alert_id=alert_id, summary=summary, resolved_by=resolved_by))
        return True

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
        if not event.alert_id.startswith(self._prefix):
            return
        if isinstance(event, AlertFired):
            self.open[event.alert_id] = event
            self.ended.discard(event.alert_id)
        else:
            self.open.pop(event.alert_id, None)
            self.ended.add(event.alert_id)
