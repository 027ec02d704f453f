"""The SDK: log predictions and labels from any program, without ever stopping it.

client = driftloop.Client("broker:9092")
prediction_id = client.log_prediction("fraud", output=1, features={"amount": 12.5, "hour": 23.0})
client.log_label("fraud", prediction_id, 0)
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Unpack

from ..schemas.codecs import decode
from ..schemas.errors import BrokerUnavailable, DriftloopError
from ..schemas.events import LabelArrived, PredictionMade, Scalar
from ..settings import Settings, load_settings
from .client_events import Format, PredictionFields, Time, label_value, new_id, prediction_value, reseed
from .client_queue import KafkaQueue, Queue, Tally, TransportQueue
from .client_settings import shown_address
from .transport import Transport

DISABLED_VARIABLE = "DRIFTLOOP_DISABLED"
WARN_EVERY_S = 60.0

log = logging.getLogger("driftloop.client")
_live: weakref.WeakSet[Client] = weakref.WeakSet()


class QueueFull(BrokerUnavailable):
    """Say that an event was dropped for want of room."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Tune a client.

    `strict` raises what is otherwise counted; `on_error` is told of every event that failed, from whichever thread notices.
    `format` json spends more bytes and time and can be read by people. `exit_flush_s` bounds how long the program's exit may wait.
    """

    enabled: bool = True
    strict: bool = False
    format: Format = "packed"
    max_queued: int = 100_000
    exit_flush_s: float = 2.0
    on_error: Callable[[DriftloopError], None] | None = None


class Counters(NamedTuple):
    """Account for every call: once flushed, sent = acked + dropped + failed.

    `dropped`: the queue was full, or the program ended first; `failed`: not valid, or refused by the broker.
    """

    sent: int
    acked: int
    dropped: int
    failed: int


class Client:
    """Log predictions and labels. Calls take microseconds, wait for nothing and raise nothing unless the config says `strict`.

    Events go to the broker named here, else to that of `settings` (default: file and environment). `transport` sends by other means.
    May be made before a fork and used in parent and children. Raises SettingsInvalid for settings that cannot work.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        self.config = ClientConfig() if config is None else config
        chosen = load_settings() if settings is None else settings
        if bootstrap_servers is not None:
            chosen = chosen.model_copy(update={"kafka": {**chosen.kafka, "bootstrap.servers": bootstrap_servers}})
        self._settings = chosen
        self._predictions, self._labels = chosen.topic("predictions"), chosen.topic("labels")
        self._lock = threading.Lock()
        self._closed = False
        self._warned_at = 0.0
        self._reset()
        self.enabled = self.config.enabled and os.environ.get(DISABLED_VARIABLE, "") not in ("1", "true")
        self._queue = self._make_queue(transport) if self.enabled else None
        _live.add(self)

    def log_prediction(self, model: str, **fields: Unpack[PredictionFields]) -> str:
        """Queue a prediction of `model` and return its id, which the label needs."""
        prediction_id = fields.get("prediction_id")
        if prediction_id is None:
            prediction_id = new_id()
        if self._queue is not None:
            try:
                value = prediction_value(model, prediction_id, fields, self.config.format)
                self._put(self._predictions, model, value)
            except DriftloopError as problem:
                self._fail(problem)
            except Exception as problem:  # noqa: BLE001 - never into the caller
                # A caller's request must not die of an argument nobody thought of.
                self._fail(DriftloopError(f"prediction must be loggable, got {type(problem).__name__}: {problem}"))
        return prediction_id

    def log_label(self, model: str, prediction_id: str, label: Scalar | None, ts: Time = None) -> None:
        """Queue the right answer to an earlier prediction; the first one counts, another one is only counted as a correction."""
        if self._queue is None:
            return
        try:
            arrived = LabelArrived(model=model, prediction_id=prediction_id, label=label, ts=ts)
            self._put(self._labels, model, label_value(arrived, self.config.format))
        except DriftloopError as problem:
            self._fail(problem)
        except Exception as problem:  # noqa: BLE001 - never into the caller
            self._fail(DriftloopError(f"label must be loggable, got {type(problem).__name__}: {problem}"))

    def retract_label(self, model: str, prediction_id: str, ts: Time = None) -> None:
        """Take back a label: rows to train on leave it out, or take the next one; metrics and verdicts that knew it stay."""
        self.log_label(model, prediction_id, None, ts)

    @property
    def counters(self) -> Counters:
        """Return what became of the events so far."""
        tally = Tally(0, 0, 0, 0) if self._queue is None else self._queue.tally()
        with self._lock:
            sent = tally.queued + self._dropped + self._invalid
            return Counters(sent, tally.acked, tally.dropped + self._dropped, tally.failed + self._invalid)

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until the broker has everything; return how many events still wait."""
        if self._queue is None:
            return 0
        try:
            return self._queue.flush(timeout_s)
        except BrokerUnavailable as problem:
            self._tell(problem)
            return 0

    def close(self, timeout_s: float | None = None) -> None:
        """Flush for at most `timeout_s` (default: `exit_flush_s`), drop and count the rest. Runs by itself at exit."""
        if self._closed:
            return
        self._closed = True
        _live.discard(self)
        if self._queue is None:
            return
        try:
            self._queue.close(self.config.exit_flush_s if timeout_s is None else timeout_s)
        except BrokerUnavailable as problem:
            self._tell(problem)
        counted = self.counters
        if counted.dropped or counted.failed:
            where = shown_address(self._settings)
            log.warning("%d of %d events were dropped and %d failed (%s)", counted.dropped, counted.sent, counted.failed, where)

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the client."""
        self.close()

    def _make_queue(self, transport: Transport | None) -> Queue:
        if transport is not None:
            return TransportQueue(transport.sender())
        return KafkaQueue(self._settings, self.config.max_queued, self._tell)

    def _put(self, topic: str, model: str, value: bytes) -> None:
        if self._closed or self._queue is None or not self._queue.put(topic, model.encode(), value):
            self._drop()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
            now = time.monotonic()
            quiet = now < self._warned_at
            if not quiet:
                self._warned_at = now + WARN_EVERY_S
        what = "the client is closed" if self._closed else f"{self.config.max_queued} events wait already"
        if not quiet:
            log.warning("events are dropped: %s (%s)", what, shown_address(self._settings))
        problem = QueueFull(f"event must find room in the queue, got none: {what}")
        self._tell(problem)
        if self.config.strict:
            raise problem

    def _fail(self, problem: DriftloopError) -> None:
        if isinstance(problem, QueueFull):
            raise problem
        with self._lock:
            self._invalid += 1
        self._tell(problem)
        if self.config.strict:
            raise problem

    def _tell(self, problem: DriftloopError) -> None:
        log.debug("an event failed: %s", problem)
        if self.config.on_error is None:
            return
        try:
            self.config.on_error(problem)
        except Exception:
            log.exception("on_error raised")

    def _reset(self) -> None:
        self._dropped = 0
        self._invalid = 0

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._reset()
        if self._queue is not None:
            self._queue.after_fork()


class NullClient(Client):
    """Be a client that does nothing, for programs that want no monitoring here."""

    def __init__(self) -> None:
        super().__init__(settings=Settings(), config=ClientConfig(enabled=False))


class RecordingClient(Client):
    """Be a client for tests: `events` holds what would have been sent, as a reader decodes it. Invalid events raise."""

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.events: list[PredictionMade | LabelArrived] = []
        super().__init__(settings=Settings(), config=ClientConfig(strict=True) if config is None else config)

    def _make_queue(self, transport: Transport | None) -> Queue:
        return _RecordingQueue(self.events)


class _RecordingQueue:
    """Decode what is put and keep it."""

    def __init__(self, events: list[PredictionMade | LabelArrived]) -> None:
        self._events = events

    def put(self, topic: str, key: bytes, value: bytes) -> bool:
        self._events.append(decode(value, PredictionMade if topic.endswith("predictions") else LabelArrived, topic))
        return True

    def flush(self, timeout_s: float) -> int:
        return 0

    def tally(self) -> Tally:
        return Tally(len(self._events), len(self._events), 0, 0)

    def close(self, timeout_s: float) -> None:
        """Keep the events."""

    def after_fork(self) -> None:
        """Keep the events."""


def _close_all() -> None:
    # librdkafka sends from threads of its own, so it still can while the interpreter ends; all clients share the one bound.
    clients = list(_live)
    deadline = time.monotonic() + max((client.config.exit_flush_s for client in clients), default=0.0)
    for client in clients:
        client.close(max(0.0, min(client.config.exit_flush_s, deadline - time.monotonic())))


def _forked() -> None:
    reseed()
    for client in list(_live):
        client._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
