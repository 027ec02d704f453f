"""The control plane without Faust: the same policy stepped by hand over any transport, for memory, tests and the demo without a broker."""

from __future__ import annotations

import threading

from ..settings import Settings
from .control_state import READ_RECORDS, ControlState
from .transport import Outgoing, Transport

FLUSH_S = 10.0


class ControlLoop:
    """The policy stepped by hand: drift and job events from the beginning, and what is due told."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._state = ControlState(settings)
        self._sender = transport.sender()
        self._reader = transport.reader(self._state.topics)
        self._state.take(self._state.read(transport))
        self._fresh = True

    def step(self, timeout_s: float = 0.0) -> int:
        """Take in what is there, send what is due; return how many records were read and sent."""
        records = self._reader.poll(READ_RECORDS, timeout_s)
        models = set(self._state.models) if self._fresh else set()
        out: list[Outgoing] = []
        for record in records:
            model, letters = self._state.admit(record)
            out += letters
            if model is not None:
                models.add(model)
        for model in sorted(models):
            out += self._state.due(model)
        for outgoing in out:
            self._sender.send(outgoing)
        if out:
            self._sender.flush(FLUSH_S)
        self._fresh = False
        return len(records) + len(out)

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set."""
        try:
            while not stop.is_set():
                if not self.step(0.05):
                    stop.wait(0.02)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the topics."""
        self._reader.close()
        self._sender.close()
