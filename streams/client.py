"""The SDK: log predictions and labels from any program, without ever stopping it.

client = driftloop.Client("broker:9092")
prediction_id = client.log_prediction("fraud", output=1, features={"amount": 12.5, "hour": 23.0})
client.log_label("fraud", prediction_id, 0)
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Unpack, get_args

from ..detectors.admission import Admission
from ..schemas.codecs import decode
from ..schemas.errors import BrokerUnavailable, DriftloopError, SettingsInvalid
from ..schemas.events import LabelArrived, PredictionMade, Scalar
from ..settings import Settings, load_settings
from . import at_fork, client_exit
from .client_events import Format, PredictionFields, Time, label_value, new_id, prediction_value
from .client_queue import KafkaQueue, Queue, Room, Tally, TransportQueue
from .client_reasons import Reasons
from .client_settings import shown_address
from .transport import Transport

DISABLED_VARIABLE = "DRIFTLOOP_DISABLED"
LEFT = "event must be sent before its client closes"
UNTOLD = "broker must take the record"
SHOWN_REASONS = 3
MAX_BOUND = 2**31 - 1
FORMATS = get_args(Format)

log = logging.getLogger("driftloop.client")


class QueueFull(BrokerUnavailable):
    """An event dropped for want of room."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The settings of one client.

    `strict` raises what is otherwise counted; `on_error` is told of every event that failed, from whichever thread notices.
    `format` json spends more bytes and time and can be read by people. `max_queued` events and `max_queued_bytes` of them wait at most.
    `exit_flush_s` bounds how long the program's exit may wait. SIGTERM too ends the process only when what waits is sent or told, where
    the program has no handler of its own and makes the client in its main thread: not before the call that it is in comes back to Python.
    `flush_on_sigterm` False leaves that out, True warns where it cannot be had.
    """

    enabled: bool = True
    strict: bool = False
    format: Format = "packed"
    max_queued: int = 100_000
    max_queued_bytes: int = 64 * 1024 * 1024
    exit_flush_s: float = 2.0
    on_error: Callable[[DriftloopError], None] | None = None
    flush_on_sigterm: bool | None = None

    def check(self) -> None:
        """Raise SettingsInvalid with every value that cannot work."""
        bounds = {"max_queued": self.max_queued, "max_queued_bytes": self.max_queued_bytes}
        # librdkafka takes 0 for no bound at all.
        problems = [
            f"{name} must be 1 to {MAX_BOUND}, got {bound!r}" for name, bound in bounds.items() if not 1 <= bound <= MAX_BOUND
        ]
        if self.format not in FORMATS:
            problems.append(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if not 0 <= self.exit_flush_s < math.inf:
            problems.append(f"exit_flush_s must be a time in seconds, got {self.exit_flush_s!r}")
        if problems:
            raise SettingsInvalid(problems)


class Counters(NamedTuple):
    """What became of every call: once flushed, sent = acked + dropped + failed.

    `dropped`: the queue was full, or the program ended first; `failed`: not valid, or refused by the broker.
    """

    sent: int
    acked: int
    dropped: int
    failed: int


class Client:
    """A log of predictions and labels. Calls take microseconds, wait for nothing and raise nothing unless the config says `strict`.

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
        self.config.check()
        self.exit_flush_s, self.flush_on_sigterm = self.config.exit_flush_s, self.config.flush_on_sigterm
        chosen = load_settings() if settings is None else settings
        if bootstrap_servers is not None:
            chosen = chosen.model_copy(update={"kafka": {**chosen.kafka, "bootstrap.servers": bootstrap_servers}})
        self._settings = chosen
        self._rules = Admission(chosen.monitor)
        self._predictions, self._labels = chosen.topic("predictions"), chosen.topic("labels")
        self._closed = False
        self._reset()
        self.enabled = self.config.enabled and os.environ.get(DISABLED_VARIABLE, "") not in ("1", "true")
        self._queue = self._make_queue(transport) if self.enabled else None
        if self._queue is not None:
            client_exit.attend(self)
            at_fork.attend(self)

    def log_prediction(self, model: str, **fields: Unpack[PredictionFields]) -> str:
        """Queue a prediction of `model` and return its id, which the label needs.

        `ts` is seconds since 1970 or a datetime; one without a zone is UTC. An event that breaks a rule of the monitor, or has a keyword
        that is none of `PredictionFields`, counts as failed: `reasons` and the log say why.
        """
        prediction_id = fields.get("prediction_id")
        if prediction_id is None:
            prediction_id = new_id()
        if self._queue is not None:
            try:
                value = prediction_value(model, prediction_id, fields, self.config.format, self._rules)
                self._put(self._predictions, model, value)
            except DriftloopError as problem:
                self._fail(problem)
            except Exception as problem:  # noqa: BLE001 - never into the caller
                # A caller's request must not die of an argument nobody thought of.
                self._fail(_unforeseen("prediction", problem))
        return prediction_id

    def log_label(self, model: str, prediction_id: str, label: Scalar | None, ts: Time = None) -> None:
        """Queue the right answer to an earlier prediction; the first one counts, another one is only counted as a correction.

        `ts` is seconds since 1970 or a datetime; one without a zone is UTC.
        """
        if self._queue is None:
            return
        try:
            arrived = LabelArrived(model=model, prediction_id=prediction_id, label=label, ts=ts)
            self._put(self._labels, model, label_value(arrived, self.config.format, self._rules))
        except DriftloopError as problem:
            self._fail(problem)
        except Exception as problem:  # noqa: BLE001 - never into the caller
            self._fail(_unforeseen("label", problem))

    def retract_label(self, model: str, prediction_id: str, ts: Time = None) -> None:
        """Take back a label: rows to train on leave it out, or take the next one; metrics and verdicts that knew it stay."""
        self.log_label(model, prediction_id, None, ts)

    @property
    def counters(self) -> Counters:
        """Return what became of the events of this process so far."""
        tally = self._tally()
        with self._lock:
            sent = tally.queued + self._dropped + self._invalid
            return Counters(sent, tally.acked, tally.dropped + self._dropped, tally.failed + self._invalid)

    @property
    def reasons(self) -> dict[str, int]:
        """Return why events of this process were dropped or failed, and how many each time; the values add up to both counters."""
        tally, found = self._tally(), self._reasons.counts()
        with self._lock:
            rest = tally.failed + self._dropped + self._invalid - sum(found.values())
        left = {LEFT: tally.dropped, UNTOLD: rest}
        return found | {reason: count for reason, count in left.items() if count > 0}

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
        if self._queue is None:
            return
        try:
            self._queue.close(self.exit_flush_s if timeout_s is None else timeout_s)
        except BrokerUnavailable as problem:
            self._tell(problem)
        client_exit.forget(self)
        self._tell_losses()

    def leave(self, timeout_s: float) -> None:
        """Send what waits, and tell of what cannot be sent: the process is about to be ended."""
        left = self.flush(timeout_s)
        if left:
            where = shown_address(self._settings)
            log.warning("%d of %d events were not sent before the process was ended (%s)", left, self.counters.sent, where)
        self._tell_losses()

    def before_fork(self) -> None:
        """Come to rest before a fork copies this process."""
        if self._queue is not None:
            self._queue.before_fork()

    def after_fork(self) -> None:
        """Start afresh in a forked child: what waits in the parent is the parent's."""
        self._reset()
        if self._queue is not None:
            self._queue.after_fork()

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the client."""
        self.close()

    def _make_queue(self, transport: Transport | None) -> Queue:
        if transport is not None:
            return TransportQueue(transport.sender())
        return KafkaQueue(self._settings, Room(self.config.max_queued, self.config.max_queued_bytes), self._tell)

    def _tally(self) -> Tally:
        return Tally(0, 0, 0, 0) if self._queue is None else self._queue.tally()

    def _put(self, topic: str, model: str, value: bytes) -> None:
        if self._closed or self._queue is None or not self._queue.put(topic, model.encode(), value):
            self._drop()

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
        what = "the client is closed" if self._closed or self._queue is None else f"{self._queue.bound()} wait already"
        problem = QueueFull(f"event must find room in the queue: {what}")
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
        count = self._reasons.add(problem)
        if count:
            what = "are dropped" if isinstance(problem, QueueFull) else "fail"
            log.warning("events %s, %d for this reason so far: %s (%s)", what, count, problem, shown_address(self._settings))
        if self.config.on_error is None:
            return
        try:
            self.config.on_error(problem)
        except BaseException:
            # Whatever it raises, an exit even: the caller only wanted to log.
            log.exception("on_error raised")

    def _tell_losses(self) -> None:
        counted = self.counters
        if not counted.dropped and not counted.failed:
            return
        reasons = list(self.reasons.items())
        shown = "; ".join(f"{count} times: {reason}" for reason, count in reasons[:SHOWN_REASONS])
        more = f"; and {len(reasons) - SHOWN_REASONS} reasons more" if len(reasons) > SHOWN_REASONS else ""
        where = shown_address(self._settings)
        log.warning(
            "%d of %d events were dropped and %d failed (%s): %s%s",
            counted.dropped,
            counted.sent,
            counted.failed,
            where,
            shown,
            more,
        )

    def _reset(self) -> None:
        # A handler of signals may come back to it in the same thread.
        self._lock = threading.RLock()
        self._reasons = Reasons()
        self._dropped = 0
        self._invalid = 0


class NullClient(Client):
    """A client that does nothing, for programs that want no monitoring here."""

    def __init__(self) -> None:
        super().__init__(settings=Settings(), config=ClientConfig(enabled=False))


class RecordingClient(Client):
    """A client for tests: `events` holds what would have been sent, as a reader decodes it. Invalid events raise."""

    def __init__(self, config: ClientConfig | None = None) -> None:
        self.events: list[PredictionMade | LabelArrived] = []
        super().__init__(
            settings=Settings(), config=ClientConfig(strict=True, flush_on_sigterm=False) if config is None else config
        )

    def _make_queue(self, transport: Transport | None) -> Queue:
        return _RecordingQueue(self.events)


class _RecordingQueue:
    """A queue that decodes what is put and keeps it."""

    def __init__(self, events: list[PredictionMade | LabelArrived]) -> None:
        self._events = events

    def put(self, topic: str, key: bytes, value: bytes) -> bool:
        self._events.append(decode(value, PredictionMade if topic.endswith("predictions") else LabelArrived, topic))
        return True

    def bound(self) -> str:
        return "no event"

    def flush(self, timeout_s: float) -> int:
        return 0

    def tally(self) -> Tally:
        return Tally(len(self._events), len(self._events), 0, 0)

    def close(self, timeout_s: float) -> None:
        """Keep the events."""

    def before_fork(self) -> None:
        """Keep the events."""

    def after_fork(self) -> None:
        """Keep the events."""


def _unforeseen(what: str, problem: Exception) -> DriftloopError:
    try:
        text = str(problem)
    except Exception:  # noqa: BLE001 - the caller's own type, whose text raises
        text = "no text"
    return DriftloopError(f"{what} must be loggable without {type(problem).__name__}, got {text}")
