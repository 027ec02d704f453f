"""Vital signs: what standing still, dead letters that rise and models that fall silent look like in numbers; pure, time is given."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from ..schemas.config import ServiceConfig
from .troubles import Trouble

Part = tuple[str, int]
KEPT_INTERVALS = 16
MIN_INTERVALS = 4
MINUTE_S = 60.0
LETTERS = "dead-letters-"
FORGET_SHARE = 0.2  # of the newest minute in the usual rate of dead letters


@dataclass(slots=True)
class _Stand:
    """How far a partition was, and since when."""

    committed: int
    since_s: float


@dataclass(slots=True)
class Stalls:
    """Partitions whose committed offset does not move while records wait behind it; `well` names those seen to move or at their end."""

    config: ServiceConfig
    well: set[str] = field(default_factory=set)
    _stands: dict[Part, _Stand] = field(default_factory=dict)
    _first_ends: dict[Part, int] = field(default_factory=dict)

    def judge(self, committed: Mapping[Part, int], ends: Mapping[Part, int], now_s: float) -> Iterator[Trouble]:
        """Yield a trouble for every partition that stands still.

        Where nothing was ever committed, only records that came since the first look count: retention may have taken all before.
        """
        for part, end in ends.items():
            at = committed.get(part, self._first_ends.setdefault(part, end))
            stand = self._stands.get(part)
            moved = stand is not None and stand.committed != at
            if stand is None or moved or end <= at:
                self._stands[part] = stand = _Stand(at, now_s)
            topic, partition = part
            name, still_s = f"stall-{topic}-{partition}", now_s - stand.since_s
            if end <= at or (moved and stand.since_s == now_s):
                self.well.add(name)
            elif still_s >= self.config.stall_s:
                self.well.discard(name)
                yield Trouble(
                    name,
                    f"partition {partition} of {topic} stands still at offset {at} for {still_s:.0f} s while {end - at} records wait:"
                    " see the log of the monitor that owns it, or start one (driftloop serve --roles monitor)",
                )


@dataclass(slots=True)
class DeadLetterRates:
    """Dead letters a minute by (topic, disposition), against what is usual; `settled` once a full minute was counted."""

    config: ServiceConfig
    settled: bool = False
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _usual: dict[tuple[str, str], float] = field(default_factory=dict)
    _rising: dict[tuple[str, str], Trouble] = field(default_factory=dict)
    _minute_s: float | None = None

    def add(self, topic: str, disposition: str) -> None:
        """Count one dead letter."""
        self._counts[topic, disposition] += 1

    def judge(self, now_s: float) -> list[Trouble]:
        """Return the kinds that rose in the last full minute, or already in this one."""
        if self._minute_s is None:
            self._minute_s = now_s
        for kind, count in self._counts.items():
            usual = self._usual.get(kind, 0.0)
            if count >= max(self.config.dead_letters_a_minute, self.config.dead_letter_factor * usual):
                topic, disposition = kind
                summary = f"{topic}: {count} dead letters `{disposition}` within a minute, {usual:.0f} are usual"
                self._rising.setdefault(kind, Trouble(f"{LETTERS}{topic}-{disposition}", summary, "medium"))
        if now_s - self._minute_s >= MINUTE_S:
            self._turn(now_s)
        return list(self._rising.values())

    def _turn(self, now_s: float) -> None:
        for kind in list(self._rising):
            if self._counts[kind] < self.config.dead_letters_a_minute:
                del self._rising[kind]
        for kind in {*self._usual, *self._counts}:
            before = self._usual.get(kind, 0.0)
            self._usual[kind] = before + FORGET_SHARE * (self._counts[kind] - before)
        self._counts.clear()
        self.settled = True
        self._minute_s = now_s


@dataclass(slots=True)
class Silences:
    """Models of which something came regularly and comes no more, metrics first of all; `well` names those heard since."""

    config: ServiceConfig
    what: str = "metrics"
    cure: str = "are predictions and labels sent?"
    well: set[str] = field(default_factory=set)
    _seen_s: dict[str, float] = field(default_factory=dict)
    _intervals: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, model: str, at_s: float) -> None:
        """Note that metrics of a model were published at `at_s`."""
        before = self._seen_s.get(model)
        if before is None and len(self._seen_s) >= self.config.watched_models:
            oldest = min(self._seen_s, key=self._seen_s.__getitem__)
            del self._seen_s[oldest]
            self.well.discard(f"silent-{oldest}")
            self._intervals.pop(oldest, None)
        if before is not None and at_s > before:
            self._intervals.setdefault(model, deque(maxlen=KEPT_INTERVALS)).append(at_s - before)
        self._seen_s[model] = at_s if before is None else max(at_s, before)
        self.well.add(f"silent-{model}")

    def judge(self, now_s: float) -> Iterator[Trouble]:
        """Yield a trouble for every model that is silent for far longer than its usual interval."""
        for model, intervals in self._intervals.items():
            silent_s, usual_s = now_s - self._seen_s[model], median(intervals)
            if len(intervals) < MIN_INTERVALS or silent_s < max(self.config.silent_s, self.config.silent_factor * usual_s):
                continue
            self.well.discard(f"silent-{model}")
            yield Trouble(
                f"silent-{model}",
                f"{model}: no {self.what} for {silent_s:.0f} s, they used to come every {usual_s:.0f} s: {self.cure}",
                "medium",
                model,
            )


class Heard:
    """Models of which predictions came at most looks and come no more, labels or not; `well` names those heard since.

    Its time is that of the looks which saw every prediction: a model is not silent because of what nobody read.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._silences = Silences(config, "predictions", "does the service that serves it run, and reach this broker?")
        self._seen_s = 0.0
        self._looked_s: float | None = None

    @property
    def well(self) -> set[str]:
        """Return the names of the troubles that are over, if there were any."""
        return self._silences.well

    def add(self, models: Iterable[bytes], now_s: float, *, is_whole: bool) -> None:
        """Note the keys of the predictions since the last look, and whether these are all of them."""
        if is_whole and self._looked_s is not None:
            self._seen_s += max(0.0, now_s - self._looked_s)
        self._looked_s = now_s
        for model in models:
            self._silences.add(model.decode("utf-8", "replace"), self._seen_s)

    def judge(self) -> Iterator[Trouble]:
        """Yield a trouble for every model that is silent for far longer than usual."""
        return self._silences.judge(self._seen_s)
