"""The watchdog: looks at offsets, dead letters, metrics and predictions from outside the roles: nothing dies or stalls in silence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from ..schemas import codecs
from ..schemas.dead_letters import PREFIX as LETTER_PREFIX
from ..schemas.errors import DriftloopError, EventInvalid
from ..schemas.events import MetricsComputed
from ..schemas.records import Record
from ..schemas.topics import KINDS
from ..settings import Settings
from .proposals import Proposals
from .transport import Reader, Transport
from .troubles import PREFIX, Trouble, TroubleBoard
from .vital_signs import LETTERS, DeadLetterRates, Heard, Part, Silences, Stalls

WATCHED_INPUTS = ("models", "predictions", "labels")
DEAD_LETTERS = tuple(name for name in KINDS if name.endswith(".dlq"))
DISPOSITION = LETTER_PREFIX + "disposition"
READ_RECORDS = 5_000
HEARD_RECORDS = 20_000
POLL_S = 0.05
QUIET_S = 60.0
log = logging.getLogger("driftloop.service")


class Watchdog:
    """The vital signs of a deployment, looked at again and again; runs beside the control role."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._config = settings.service
        self._transport = transport
        self._board = TroubleBoard(settings, transport)
        self._reader: Reader | None = None
        self._stalls = Stalls(self._config)
        self._letters = DeadLetterRates(self._config)
        self._silences = Silences(self._config)
        self._ear: Reader | None = None
        self._heard = Heard(self._config)
        self._proposals = Proposals(settings, transport)
        self._quiet_until = 0.0

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set; whatever fails is logged once a minute and tried again."""
        while not stop.wait(self._config.look_every_s):
            try:
                self.look(time.time())
            except Exception as problem:  # noqa: BLE001 - the watchdog must outlive what it watches
                self._start_over(problem)
        self._close()

    def look(self, now_s: float) -> None:
        """Take the vital signs once, and publish which troubles begin and which are over, and which proposals; raises BrokerUnavailable."""
        self._board.refresh()
        self._read()
        self._listen(now_s)
        found = {trouble.alert_id: trouble for trouble in self._troubles(now_s)}
        for trouble in found.values():
            self._board.begin(trouble)
        for alert_id in [one for one in self._board.open if one not in found and self._is_over(one.removeprefix(PREFIX))]:
            self._board.end(alert_id, f"{alert_id.removeprefix(PREFIX)}: back to usual")
        self._proposals.look(now_s)

    def _is_over(self, name: str) -> bool:
        """Return True for what was seen to be well; what began before this watchdog did may last without it having noticed yet."""
        if name.startswith(LETTERS):
            return self._letters.settled
        return name in self._stalls.well or name in self._silences.well or name in self._heard.well

    def _troubles(self, now_s: float) -> Iterator[Trouble]:
        committed: dict[Part, int] = {}
        ends: dict[Part, int] = {}
        for kind in WATCHED_INPUTS:
            topic = self._settings.topic(kind)
            offsets = self._transport.committed(self._settings.monitor_group, topic)
            committed |= {(topic, partition): offset for partition, offset in offsets.items()}
            ends |= {(topic, partition): offset for partition, offset in self._transport.end_offsets(topic).items()}
        yield from self._stalls.judge(committed, ends, now_s)
        yield from self._letters.judge(now_s)
        # One alert for a model that sends nothing at all: its metrics end as well.
        yield from {trouble.name: trouble for trouble in (*self._silences.judge(now_s), *self._heard.judge())}.values()

    def _listen(self, now_s: float) -> None:
        """Note of which models predictions came since the last look; too many to read say nothing of the other models."""
        topics = [self._settings.topic("predictions")]
        if self._ear is None:
            self._ear = self._transport.reader(topics, "latest")
        models: set[bytes] = set()
        count = 0
        while count < HEARD_RECORDS and (records := self._ear.poll(HEARD_RECORDS - count, POLL_S)):
            count += len(records)
            models.update(record.key for record in records if record.key is not None)
        is_whole = count < HEARD_RECORDS
        self._heard.add(models, now_s, is_whole=is_whole)
        if not is_whole:
            # What was not read is left out, lest the watchdog fall behind for ever.
            self._ear.close()
            self._ear = None
            self._ear = self._transport.reader(topics, "latest")

    def _read(self) -> None:
        if self._reader is None:
            topics = [self._settings.topic(kind) for kind in ("metrics", *DEAD_LETTERS)]
            self._reader = self._transport.reader(topics, "latest")
        # One stretch a look: a flood of dead letters must not keep the watchdog from looking at all else.
        for record in self._reader.poll(READ_RECORDS, POLL_S):
            if record.topic == self._settings.topic("metrics"):
                self._note_metrics(record)
            else:
                said = dict(record.headers).get(DISPOSITION)
                self._letters.add(record.topic, "unknown" if said is None else said.decode("ascii", "replace"))

    def _note_metrics(self, record: Record) -> None:
        try:
            event = codecs.decode(record.value, KINDS["metrics"].carries, record.topic)
        except EventInvalid:
            return
        if isinstance(event, MetricsComputed):
            self._silences.add(event.model, record.timestamp_ms / 1000.0)

    def _start_over(self, problem: Exception) -> None:
        now_s = time.monotonic()
        if now_s >= self._quiet_until:
            self._quiet_until = now_s + QUIET_S
            log.warning("the watchdog looks again: %s: %s", type(problem).__name__, problem)
        self._close()

    def _close(self) -> None:
        try:
            for reader in (self._reader, self._ear):
                if reader is not None:
                    reader.close()
            self._board.close()
            self._proposals.close()
        except DriftloopError as problem:
            log.warning("the watchdog's clients did not close: %s", problem)
        self._reader = self._ear = None
