"""The watch's state as parts: one for each model, and one for each lane in pieces of bounded size; msgpack, arrays as bytes.

Every part stands for itself, so that only what a batch touched is written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from ..schemas.errors import SnapshotInvalid
from .episodes import Episode
from .lane_seal import sealed, unseal
from .metric_sums import Window
from .roster import Roster
from .versions import Version, Watched

PIECE_BYTES = 880_000
_encoder = msgspec.msgpack.Encoder()


class WatchState:
    """The state of a roster and its scores, as parts; beside it the offset of the newest joined label."""

    def __init__(self, roster: Roster, last_label: int) -> None:
        self._roster = roster
        self._pieces: dict[str, int] = {}
        self._label_written = last_label
        self.begun_anew: Counter[str] = Counter()

    def take_dirty(self, last_label: int) -> dict[str, bytes | None]:
        """Return the parts that changed since the last call."""
        parts = self._take_gone()
        for slot in sorted(self._roster.touched):
            self._take_model(parts, slot)
        if self._label_written != last_label:
            parts["w/labels"] = _encoder.encode(last_label)
            self._label_written = last_label
        return parts

    def take_new(self, slots: Iterable[int]) -> dict[str, bytes | None]:
        """Return the parts of models that were never saved, ahead of the next `take_dirty`."""
        # What is gone goes first: a slot that is used again must not lose its new model to the deletion of the old one.
        parts = self._take_gone()
        for slot in slots:
            self._take_model(parts, slot)
        return parts

    def _take_gone(self) -> dict[str, bytes | None]:
        parts: dict[str, bytes | None] = {}
        for gone in self._roster.gone:
            self._put(parts, f"w/{gone}", b"")
        self._roster.gone.clear()
        return parts

    def _take_model(self, parts: dict[str, bytes | None], slot: int) -> None:
        roster = self._roster
        watched = roster.models[slot]
        self._put(parts, f"w/m/{slot}", _encoder.encode(_model_state(watched)))
        if slot in roster.fresh_inputs:
            self._put(parts, f"w/i/{slot}", b"" if watched.inputs is None else _encoder.encode(sealed(watched.inputs)))
        for number, version in watched.versions.items():
            if version.dirty:
                self._put(parts, f"w/v/{slot}/{number}", _encoder.encode(self._version_state(version)))
                version.dirty = False
        roster.touched.discard(slot)
        roster.fresh_inputs.discard(slot)
        roster.unsaved.pop(slot, None)

    def whole(self, last_label: int) -> dict[str, bytes]:
        """Return all parts; what the next `take_dirty` gives is not changed by it."""
        roster = self._roster
        found = {"w/labels": _encoder.encode(last_label)}
        for slot, watched in roster.models.items():
            states = {f"w/m/{slot}": _model_state(watched)}
            if watched.inputs is not None:
                states[f"w/i/{slot}"] = sealed(watched.inputs)
            states |= {f"w/v/{slot}/{number}": self._version_state(version) for number, version in watched.versions.items()}
            for key, state in states.items():
                data = _encoder.encode(state)
                found |= {
                    f"{key}/{number}": data[first : first + PIECE_BYTES]
                    for number, first in enumerate(range(0, len(data), PIECE_BYTES))
                }
        return found

    def _put(self, parts: dict[str, bytes | None], key: str, data: bytes) -> None:
        count = -(-len(data) // PIECE_BYTES)
        for number in range(count):
            parts[f"{key}/{number}"] = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        for number in range(count, self._pieces.get(key, 0)):
            parts[f"{key}/{number}"] = None
        if count:
            self._pieces[key] = count
        else:
            self._pieces.pop(key, None)

    def _version_state(self, version: Version) -> Any:
        scores = self._roster.scores
        total = scores.totals.get(version.slot)
        windows = (scores.windows.window(version.slot), total)
        return (
            *(version.predictions, version.labelled, version.last_seen),
            *(sealed(version.output), sealed(version.error)),
            [None if window is None else _window_state(window) for window in windows],
        )

    def restore(self, parts: Mapping[str, bytes]) -> int:
        """Take over parts and return the newest joined label; raises SnapshotInvalid."""
        try:
            return self._restore(parts)
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError, IndexError) as problem:
            raise SnapshotInvalid(f"state of the watch must be what this version wrote, got {problem!r}") from problem

    def _restore(self, parts: Mapping[str, bytes]) -> int:
        pieces: dict[str, dict[int, bytes]] = {}
        for key, data in parts.items():
            if key == "w/labels":
                self._label_written = int(msgspec.msgpack.decode(data))
                continue
            name, _, number = key.rpartition("/")
            pieces.setdefault(name, {})[int(number)] = data
        whole = {name: b"".join(mine[number] for number in range(len(mine))) for name, mine in pieces.items()}
        self._pieces = {name: len(mine) for name, mine in pieces.items()}
        for kind in ("m", "i", "v"):
            for name in sorted(whole):
                if name.startswith(f"w/{kind}/"):
                    self._read(name.split("/")[1:], msgspec.msgpack.decode(whole[name]))
        return self._label_written

    def _read(self, name: list[str], state: Any) -> None:
        roster, slot = self._roster, int(name[1])
        if name[0] == "m":
            generation, layout, predictions, episodes, seen = state
            watched = roster.watched(slot, generation)
            watched.layout, watched.predictions = tuple(layout), predictions
            watched.next_turn_ms, watched.seen_ms, watched.is_labelled = seen
            watched.book.open, watched.book.settled = (
                {one["signal"]: msgspec.convert(one, Episode) for one in some} for some in episodes
            )
        elif name[0] == "i":
            watched = roster.models[slot]
            watched.inputs = roster.inputs_lane(slot, watched.layout)
            self.begun_anew.update(unseal(watched.inputs, state))
        else:
            version = roster.version(slot, int(name[2]))
            version.predictions, version.labelled, version.last_seen, output, error, windows = state
            version.dirty = False
            self.begun_anew.update(unseal(version.output, output) + unseal(version.error, error))
            window, total = (None if one is None else _window(one) for one in windows)
            if window is not None and window.rows >= roster.scores.every_rows:
                # A window that is longer than one may be now counts as told.
                total = Window(0, 0) if total is None else total
                total.add(window)
                window = None
            if window is not None:
                roster.scores.windows.place(version.slot, window)
            if total is not None:
                roster.scores.totals[version.slot] = total


def _model_state(watched: Watched) -> Any:
    return (
        *(
            watched.generation,
            watched.layout,
            watched.predictions,
            [[msgspec.to_builtins(one) for one in some.values()] for some in (watched.book.open, watched.book.settled)],
        ),
        (watched.next_turn_ms, watched.seen_ms, watched.is_labelled),
    )


def _window_state(window: Window) -> Any:
    histograms = window.histograms.astype(np.int64)
    filled = np.flatnonzero(histograms)
    return (
        *(window.rows, window.losses, window.loss_sum, window.unfit, window.contrary, window.absolute, window.square),
        *(window.classes.shape[1], window.classes.tobytes(), len(histograms)),
        *(filled.astype(np.int32).tobytes(), histograms.reshape(-1)[filled].tobytes()),
    )


def _window(state: Any) -> Window:
    *sums, classes, counts, scored, filled, values = state
    window = Window(classes, scored)
    window.rows, window.losses, window.loss_sum, window.unfit, window.contrary, window.absolute, window.square = sums
    window.classes[:] = np.frombuffer(counts, np.int64).reshape(window.classes.shape)
    window.histograms.reshape(-1)[np.frombuffer(filled, np.int32)] = np.frombuffer(values, np.int64)
    return window
