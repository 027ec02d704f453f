"""The serving side of a demo: the champion through a ModelWatcher, the log through a Client, the first model trained and published."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.runtime import Runner
from ..schemas.errors import BrokerUnavailable, DriftloopError
from ..schemas.events import Scalar, Signature
from ..schemas.rows import Rows
from ..settings import Settings
from . import publishing
from .client import Client
from .labelled_table import Table
from .player import Served
from .transport import Transport
from .watcher import ModelWatcher

FIRST_MODEL_S = 30.0
FLUSH_S = 30.0


class WatchedServing:
    """The champion that a ModelWatcher has handed over."""

    def __init__(self, settings: Settings, transport: Transport, model: str) -> None:
        self._watcher = ModelWatcher(model, settings=settings, transport=transport)
        self._served: Served | None = None

    def current(self) -> Served:
        """Return the newest version handed over; waits for the first one."""
        promoted = self._watcher.poll(FIRST_MODEL_S if self._served is None else 0.0)
        if promoted is not None:
            self._served = Served(promoted.version, Runner(promoted.onnx, promoted.signature))
        if self._served is None:
            raise DriftloopError(f"a model must be handed over within {FIRST_MODEL_S:g} s ({self._watcher.model})")
        return self._served

    def __enter__(self) -> WatchedServing:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop watching."""
        self._watcher.close()


class ClientLog:
    """The log of predictions and labels of a table's rows, as a user's program would keep it."""

    def __init__(self, settings: Settings, transport: Transport, what: tuple[str, Table]) -> None:
        self._model, self._table = what
        self._features = self._table.features
        self._client = Client(settings=settings, transport=transport) if transport.name == "memory" else Client(settings=settings)

    def prediction(self, version: int, row: int, scores: NDArray[np.float32]) -> None:
        """Log one prediction; its id is the row."""
        answer: dict[str, Any] = {"output": float(scores[0])}
        if self._table.classes:
            answer = {"output": self._table.classes[int(scores.argmax())], "scores": scores}
        self._client.log_prediction(self._model, version=version, features=self._features[row], prediction_id=str(row), **answer)

    def label(self, row: int, label: Scalar) -> None:
        """Log one label."""
        self._client.log_label(self._model, str(row), label)

    def flush(self) -> None:
        """Wait until everything is with the broker; raises BrokerUnavailable where it is not."""
        left = self._client.flush(FLUSH_S)
        if left:
            raise BrokerUnavailable(f"all events must be acknowledged within {FLUSH_S:g} s, got {left} that are not (demo)")

    def __enter__(self) -> ClientLog:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the client."""
        self._client.close()


def train_first(table: Table, rows: int, model: str) -> publishing.NewModel:
    """Return a small model trained on the first rows."""
    import torch

    from ..compression.small_model import train_small_model

    # Two torch threads that contend for a processor are many times slower than one; the service next door wants the other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    signature = Signature(task=table.task, features=table.names, classes=table.classes)
    train = Rows(table.features[:rows], table.labels[:rows], np.arange(rows, dtype=np.int64))
    try:
        onnx = train_small_model(train, signature)
    finally:
        torch.set_num_threads(threads)
    return publishing.NewModel(model, onnx, signature, recipe="first", trained_rows=rows)


def publish_first(settings: Settings, transport: Transport, new: publishing.NewModel) -> None:
    """Register the first model and make it the champion."""
    registered = publishing.register(settings, transport, new)
    publishing.promote(settings, transport, (new.model, registered.version), "the first model")
