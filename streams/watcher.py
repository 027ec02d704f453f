"""ModelWatcher: hand each newly promoted model to a serving process, bytes checked against the digest that was announced."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypedDict, Unpack

from ..schemas.config import ModelsConfig
from ..schemas.errors import ArtifactInvalid, DriftloopError
from ..schemas.events import ModelRegistered, Signature
from ..schemas.plain_text import one_line
from ..settings import Settings, load_settings
from . import at_fork
from .at_fork import Patience
from .model_trial import DEFAULTS, tried
from .predictor import Predictor
from .registry import POLL_RECORDS, Registry
from .signing import verifier_of
from .transport import Reader, Transport

POLL_S = 1.0
RETRY_S = 5.0
TURN_S = 0.02

log = logging.getLogger("driftloop.watcher")


class Artifacts(Protocol):
    """A source of artifacts by digest, as `compression.store.ArtifactStore` is."""

    def get(self, digest: str) -> bytes:
        """Return the bytes; raises DriftloopError where they are missing or altered."""


@dataclass(frozen=True, slots=True)
class PromotedModel:
    """A model to serve: what it is called, what it takes and gives, and its ONNX bytes."""

    model: str
    version: int
    digest: str
    signature: Signature
    onnx: bytes = field(repr=False)
    config: ModelsConfig = field(default=DEFAULTS, repr=False, compare=False)

    def session(self) -> Any:
        """Return an onnxruntime session with as many threads as this process may use, none of which spins while idle.

        The bytes were opened and run in a limited child before, once for each digest. Raises ArtifactInvalid where they are refused
        there or are no model of this signature.
        """
        tried(self.onnx, self.config, self.signature)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(self.onnx, options, providers=["CPUExecutionProvider"])

    def predictor(self) -> Predictor:
        """Return the model as a function of features, over a session of its own; raises as `session`."""
        return Predictor(self.session(), self.signature)


class WatcherOptions(TypedDict, total=False):
    """The parts of a watcher that have defaults: settings and their transport and store, no callback."""

    settings: Settings
    transport: Transport
    store: Artifacts
    on_model: Callable[[PromotedModel], None]


class ModelWatcher:
    """The champion of one model, followed.

    Call `poll` from a loop, or give `on_model` and use it as a context manager (or `start`): then a thread calls it with each new model.
    A model that cannot be fetched, has other bytes than announced, or does not open, run and fit its signature in a child process
    under limits is never handed over; the one before stays, and fetching is tried again.
    May be made and started before a fork (gunicorn with preload): each child goes on with a reader, and a thread, of its own, and is
    handed the champion anew. Sessions that the parent made do not work there: the threads of onnxruntime are the parent's.
    """

    def __init__(self, model: str, **options: Unpack[WatcherOptions]) -> None:
        self.model = model
        self.current: PromotedModel | None = None
        given = options.get("settings")
        self._settings = load_settings() if given is None else given
        self._given_transport = self._transport = options.get("transport")
        self._given_store = self._store = options.get("store")
        self._on_model = options.get("on_model")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._reader: Reader | None = None
        self._patience = Patience()
        self._begin()
        at_fork.attend(self)

    def _begin(self) -> None:
        self._registry = Registry(verifier_of(self._settings.signing))
        self._caught_up = False
        self._handed: tuple[int, str] | None = None
        self._refused: tuple[int, str] | None = None
        self._retry_at = 0.0

    def poll(self, timeout_s: float = 0.0) -> PromotedModel | None:
        """Return the champion if this process was handed another one, or none, waiting up to `timeout_s` for one; else None.

        Versions that were replaced before this call looked are passed over. Raises NotFound without topics, BrokerUnavailable.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._read(max(0.0, min(POLL_S, deadline - time.monotonic())))
            promoted = self._fetch() if self._caught_up else None
            if promoted is not None:
                self.current, self._handed = promoted, (promoted.version, promoted.digest)
                return promoted
            if time.monotonic() >= deadline:
                return None

    def start(self) -> None:
        """Call `on_model` from a daemon thread with each new model until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"driftloop-watch-{self.model}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread and let go of the broker."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def before_fork(self) -> None:
        """Wait until the reader knows the topic: then its client is not about to connect."""
        if self._reader is not None and not self._caught_up:
            self._patience.wait(self._comes_to_know)

    def after_fork(self) -> None:
        """Go on with a reader of its own, in the child, and with a thread if there was one."""
        at_fork.abandon(self._reader, self._transport, self._store)
        self._reader, self._transport, self._store = None, self._given_transport, self._given_store
        self._begin()
        was_started = self._thread is not None and not self._stop.is_set()
        self._stop, self._thread = threading.Event(), None
        if was_started:
            self.start()

    def __enter__(self) -> ModelWatcher:
        """Start the thread if there is a callback."""
        if self._on_model is not None:
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the watcher."""
        self.close()

    def _comes_to_know(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self._caught_up and time.monotonic() < deadline:
            if self._thread is None:
                self._read(TURN_S)
            else:
                time.sleep(TURN_S)
        return self._caught_up

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                promoted = self.poll(POLL_S)
                if promoted is not None and self._on_model is not None:
                    self._on_model(promoted)
            except Exception:
                # The thread must outlive a broker that is away and a callback that fails: nobody else would notice its end.
                log.exception("watching %s goes on after an error", self.model)
                self._stop.wait(RETRY_S)

    def _read(self, timeout_s: float) -> None:
        if self._reader is None:
            if self._transport is None:
                from .kafka import KafkaTransport

                self._transport = KafkaTransport(self._settings)
            self._reader = self._transport.reader([self._settings.topic("models")])
        for record in self._reader.poll(POLL_RECORDS, timeout_s):
            self._registry.apply_record(record)
        # History is not replayed to the caller: the first champion told is the one at the end of the topic.
        self._caught_up = self._caught_up or self._reader.at_end()

    def _fetch(self) -> PromotedModel | None:
        champion = self._registry.champion(self.model)
        if champion is None:
            return None
        wanted = (champion.version, champion.digest)
        if self._handed == wanted:
            return None
        if self._refused == wanted and time.monotonic() < self._retry_at:
            return None
        try:
            return self._load(champion)
        except Exception as problem:  # noqa: BLE001 - MemoryError, or whatever a store behind a URL raises: the model before serves on
            said = problem if isinstance(problem, DriftloopError) else f"{type(problem).__name__}: {one_line(problem)}"
            log.warning("%s version %d is not handed over: %s", self.model, champion.version, said)
            self._refused, self._retry_at = wanted, time.monotonic() + RETRY_S
            return None

    def _load(self, champion: ModelRegistered) -> PromotedModel:
        from ..compression.store import ArtifactStore

        limit_bytes = self._settings.models.max_bytes
        if not 0 < champion.size_bytes <= limit_bytes:
            raise ArtifactInvalid(f"artifact must have 1 to {limit_bytes} bytes, got {champion.size_bytes} (models.max_bytes)")
        if self._store is None:
            self._store = ArtifactStore(self._settings.store.url)
        if isinstance(self._store, ArtifactStore):
            onnx = self._store.get(champion.digest, champion.size_bytes)
            self._store.check_manifest(champion.digest, champion.model, champion.signature, champion.manifest_digest)
        else:
            onnx = self._store.get(champion.digest)
        found = hashlib.sha256(onnx).hexdigest()
        if found != champion.digest:
            raise ArtifactInvalid(f"artifact must have the digest that was announced, {champion.digest}, got {found}")
        if len(onnx) != champion.size_bytes:
            raise ArtifactInvalid(f"artifact must have the size that was announced, {champion.size_bytes} bytes, got {len(onnx)}")
        config = self._settings.models
        tried(onnx, config, champion.signature)
        return PromotedModel(champion.model, champion.version, champion.digest, champion.signature, onnx, config)
