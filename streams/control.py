"""The control plane: a Faust app that folds drift, job and model events and tells jobs and alerts that are due.

Requests are level-triggered: at every assignment the state is read back from the topics and all that is due is sent, under the id it
always has. So it does not matter that Faust commits now and then, acks what raised, or gives an event again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import (  # type: ignore[import-untyped,unused-ignore]
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
)

from ..schemas.partitions import partition_of
from ..schemas.plain_text import one_line
from ..schemas.records import Record
from ..settings import Settings
from .control_state import FOLDED, ControlState
from .faust_settings import App, faust_options, group_of
from .kafka import KafkaTransport
from .transport import Outgoing

TICK_S = 0.25
RETRY_S = 1.0
MAX_RETRY_S = 30.0
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)
STOP_TIMEOUT_S = 15.0
log = logging.getLogger("driftloop.control")


class ControlAgents:
    """What the agents of one app share: the state, and the lock under which it is read back."""

    def __init__(self, settings: Settings, app: Any) -> None:
        self.ready = threading.Event()
        self._settings = settings
        self._app = app
        self._state = ControlState(settings)
        self._lock = asyncio.Lock()
        self._stale = threading.Event()
        self._stale.set()
        self._wait_s = RETRY_S
        self._not_before = 0.0

    async def handle(self, message: Any) -> None:
        """Take one record in; nothing it holds can end the agent."""
        record = Record(
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            timestamp_ms=int(message.timestamp * 1000),
            key=message.key,
            value=message.value,
            headers=tuple((name, value) for name, value in _pairs(message.headers)),
        )
        await self.refresh()
        async with self._lock:
            model, letters = self._state.admit(record)
            await self._send_all(letters)
            if model is not None:
                await self._send_all(self._state.due(model))

    async def on_assigned(self) -> None:
        """Note that partitions may be new here."""
        self._stale.set()

    async def refresh(self) -> None:
        """Read the state back if it may be stale and send what is due; tries again until the broker answers."""
        while self._stale.is_set() and not self._app.should_stop:
            async with self._lock:
                await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
                if not self._stale.is_set():
                    return
                # Before the reading: partitions that come while it goes on make it stale again.
                self._stale.clear()
                try:
                    loop = asyncio.get_running_loop()
                    events = await loop.run_in_executor(None, self._state.read, KafkaTransport(self._settings))
                except Exception as problem:  # noqa: BLE001 - whatever the client says, the next try may succeed
                    log.warning("reading the state back is tried again in %g s: %s", self._wait_s, one_line(problem))
                    self._again()
                    continue
                self._state.take(events)
                for model in sorted(self._state.models):
                    if self._owns(model):
                        await self._send_all(self._state.due(model))
                if not self._stale.is_set():
                    self._wait_s = RETRY_S
                self.ready.set()

    def _again(self) -> None:
        """Read the state back once more, later each time in a row."""
        self._stale.set()
        self._not_before = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, MAX_RETRY_S)

    def _owns(self, model: str) -> bool:
        partition = partition_of(model.encode(), self._settings.topics.partitions)
        return any(
            tp.topic == self._settings.topic("drift") and tp.partition == partition for tp in self._app.consumer.assignment()
        )

    async def _send_all(self, outgoing: list[Outgoing]) -> None:
        for one in outgoing:
            try:
                await self._app.producer.send_and_wait(one.topic, one.key, one.value, None, None, list(one.headers))
            except Exception as problem:  # noqa: BLE001 - what was not sent becomes due again
                if isinstance(problem.__cause__ or problem, TOO_LARGE):
                    # It would be refused again, for ever.
                    log.error("a record of %d bytes for %s is given up: %s", len(one.value or b""), one.topic, one_line(problem))
                    continue
                log.warning("sending to %s is tried again in %g s: %s", one.topic, self._wait_s, one_line(problem))
                self._again()


def create_app(settings: Settings) -> Any:
    """Return the Faust app; must be called in the event loop it will run in. `app.driftloop` is its ControlAgents."""
    app = App(group_of(settings), **faust_options(settings))
    agents = ControlAgents(settings, app)
    app.driftloop = agents  # type: ignore[attr-defined,unused-ignore]
    for kind in FOLDED:
        _declare(app, settings.topic(kind), kind, agents.handle)

    @app.on_partitions_assigned.connect  # type: ignore[misc,unused-ignore]
    async def assigned(*_: Any, **__: Any) -> None:
        await agents.on_assigned()

    @app.timer(interval=TICK_S)  # type: ignore[misc,untyped-decorator,unused-ignore]
    async def tick() -> None:
        await agents.refresh()

    return app


def _declare(app: Any, topic: str, kind: str, handle: Callable[[Any], Awaitable[None]]) -> None:
    async def follow(stream: Any) -> None:
        async for event in stream.events():
            try:
                await handle(event.message)
            except Exception:
                log.exception("a record of %s could not be handled", topic)

    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes, allow_empty=True)
    app.agent(channel, name=f"driftloop.control.{kind}", concurrency=1)(follow)


def _pairs(headers: Any) -> list[tuple[str, bytes | None]]:
    if not headers:
        return []
    return list(headers.items()) if hasattr(headers, "items") else list(headers)


class ControlPlane:
    """The app in the calling thread, with an event loop of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ready = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set; raises what crashed the app."""
        asyncio.run(self._serve(stop))

    async def _serve(self, stop: threading.Event) -> None:
        app = create_app(self._settings)
        app.driftloop.ready = self.ready
        app.finalize()
        starting = asyncio.create_task(app.start())
        try:
            while not stop.is_set() and not app.should_stop:
                if starting.done():
                    starting.result()
                await asyncio.sleep(0.05)
            if app.crash_reason is not None:
                raise app.crash_reason
        finally:
            starting.cancel()
            await asyncio.wait_for(app.stop(), STOP_TIMEOUT_S)
