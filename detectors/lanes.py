"""A lane: signals that share rows and a block clock, from warm-up over baseline and blocks to alarms.

After an alarm the signal warms up anew on the rows that follow, so that the level after a change becomes its baseline. A share
signal `missing/<name>` is counted from the gaps of its number signal, and sleeps as long as there are none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import call

import numpy as np

from ..schemas.config import MonitorConfig
from . import baseline as baselines
from .adwin import Adwin
from .alarms import Alarm, Level, Place
from .baseline import Baseline
from .blocks import UNIT, Bank, Block, Blocks, Feed
from .change_point import best_split
from .columns import Ints
from .detector import Detector
from .faults import LaneBroken, contained
from .history import History, Past
from .page_hinkley import PageHinkley
from .warm_up import LaneKind, WarmUp, baseline_of, block_means, first_baselines, past_blocks

MAX_SLEPT_BLOCKS = 32
# A detector looks at every block for ever; a split it points at must also stand out by itself, as a deviation of so many sd.
MIN_EVIDENCE_SD = 4.0
REFERENCE_ROWS = 2_000
NO_DETECTORS: list[Detector] = []
"""What all signals without any share; it is replaced, never added to."""

# Detectors that fired at a block, by signal; None where they have not seen it, a text where looking at it failed.
Fired = dict[int, Detector] | str | None


class Lane:
    """One lane: what turns its blocks into alarms."""

    def __init__(self, kind: LaneKind, config: MonitorConfig, bank: Bank, owner: tuple[int, int]) -> None:
        self.model, self.version = owner
        self.kind = kind
        self.config = config
        self.bank = bank
        self.signals = kind.signals
        self.index = bank.add(self)
        self.since = [0] * len(self.signals)
        self._asleep = np.zeros(kind.shares, np.bool_)
        self.begin()

    @property
    def name(self) -> str:
        """Return what faults call the lane."""
        return "inputs" if len(self.signals) > 1 else f"{self.signals[0]} of version {self.version}"

    def begin(self) -> None:
        """Start the warm-up of the whole lane at its next row."""
        bank, at, rows = self.bank, self.index, self.config.warm_up_rows
        self.broken = ""
        self.baselines: list[Baseline | None] = [None] * len(self.signals)
        self.detectors: list[list[Detector]] = [NO_DETECTORS] * len(self.signals)
        self.history = History(self.kind.history_blocks, bank.width)
        self.warm_ups = [WarmUp.of_lane(len(self.signals), rows, bank.width)]
        bank.center[at], bank.factor[at], bank.mean[at], bank.weight[at] = 0.0, 1.0, 0.0, 0.0
        bank.slow[at] = bank.raw[at] = True
        bank.restart(at, rows)
        # As `rearm` would leave it: most lanes of a flood of names never come further.
        self.mute: list[int] = []
        self.watchers: list[tuple[int, Callable[[float], bool], Detector]] = []
        self.share_watchers: list[tuple[int, float, float, Detector]] = []
        self._one_each: list[Callable[[float], bool]] = []
        if self.kind.shares:
            self._asleep[:] = False

    def rearm(self) -> None:
        """Bring everything that is derived from baselines, detectors and warm-ups up to date."""
        bank, width = self.bank, self.bank.width
        busy = {at for warm_up in self.warm_ups for at in warm_up.signals}
        self.mute = [at for at in range(width) if self.baselines[at] is None and at not in busy]
        bank.slow[self.index] = bool(self.warm_ups)
        bank.raw[self.index] = bool(self.warm_ups) and self.warm_ups[0].whole
        rows = int(bank.block_rows[self.index])
        means = [0.0 if known is None else known.mean for known in self.baselines]
        weights = [0.0 if known is None else 1.0 / known.block_sd(rows) for known in self.baselines]
        bank.mean[self.index], bank.weight[self.index] = means[:width], weights[:width]
        self.watchers, self.share_watchers = [], []
        for at, watching in enumerate(self.detectors):
            for detector in watching:
                if at < width:
                    self.watchers.append((at, detector.update, detector))
                else:
                    self.share_watchers.append((at, means[at], weights[at], detector))
        each = [at for at, _, _ in self.watchers] == list(range(width))
        self._one_each = [update for _, update, _ in self.watchers] if each else []
        for at in range(self.kind.shares):
            self._asleep[at] = self.baselines[width + at] is not None and not self.detectors[width + at]

    def absorb(self, feed: Feed, rows: slice) -> None:
        """Keep raw rows for the warm-ups."""
        try:
            for warm_up in self.warm_ups:
                warm_up.absorb(feed, rows)
        except BaseException as problem:  # noqa: BLE001 - where the rows were cut must not show: the next full block tells
            self.broken = contained(problem)

    def remember(self, blocks: Blocks, start: int, stop: int) -> None:
        """Add blocks that the detectors have seen to the history."""
        try:
            self.history.extend(blocks, start, stop)
        except BaseException as problem:  # noqa: BLE001 - as above
            self.broken = contained(problem)

    def scan(self, blocks: Blocks, start: int, stop: int) -> tuple[int, Fired]:
        """Let the detectors of a lane that is not in warm-up see blocks from `start` on, as long as nothing comes of it.

        Return the first block that needs `close`, or `stop`, and the detectors that fired at it; None where they have not seen it.
        """
        if self.broken:
            return start, self.broken
        scores, gaps, updates, watchers = blocks.scores, blocks.gaps, self._one_each, self.watchers
        number = start
        try:
            for number in range(start, stop):
                row, rows = scores[number], blocks.rows[number]
                if gaps[number] or self.mute:
                    present = blocks.present[number] if blocks.present is not None and gaps[number] else None
                    if self._stirs(present, rows):
                        return number, None
                    fired = self._feed(row, present, rows, [])
                else:
                    flags = list(map(call, updates, row)) if updates else [update(row[at]) for at, update, _ in watchers]
                    fired = self._fired(flags) if True in flags else {}
                    if self.share_watchers:
                        self._watch_shares((None, rows), [], fired)
                if fired:
                    return number, fired
        except BaseException as problem:  # noqa: BLE001 - the block is closed in its turn, and the lane begins anew there
            return number, contained(problem)
        return stop, None

    def _fired(self, flags: list[bool]) -> dict[int, Detector]:
        fired: dict[int, Detector] = {}
        for (at, _, detector), flag in zip(self.watchers, flags, strict=True):
            if flag:
                fired.setdefault(at, detector)
        return fired

    def _stirs(self, present: Ints | None, rows: int) -> bool:
        if any(present is None or present[at] * 2 >= rows for at in self.mute):
            return True
        return present is not None and bool((self._asleep & (present[: self.kind.shares] < rows)).any())

    def _feed(self, scores: list[float], present: Ints | None, rows: int, frozen: list[int]) -> dict[int, Detector]:
        fired: dict[int, Detector] = {}
        for at, update, detector in self.watchers:
            score = scores[at]
            # A signal without a value in the block has no score: NaN is unequal to itself.
            if score == score and at not in frozen and update(score):
                fired.setdefault(at, detector)
        if self.share_watchers:
            self._watch_shares((present, rows), frozen, fired)
        return fired

    def close(self, block: Block, fired: Fired = None) -> tuple[list[Alarm], list[Level]]:
        """Take a full block; return alarms, and the levels that became baselines.

        `fired`: what `scan` said of the block, None where the detectors have not seen it. Whatever it raises, `begin` makes the lane sound.
        """
        if self.broken or isinstance(fired, str):
            raise LaneBroken(self.broken or str(fired))
        if self.warm_ups and self.warm_ups[0].whole:
            return [], self._freeze_whole()
        self.history.push(block)
        levels: list[Level] = []
        if fired is None:
            frozen: list[int] = []
            if self.warm_ups:
                frozen, levels = self._freeze_due()
            if block.present is not None and self.kind.shares:
                self._wake(block.present, block.rows)
            fired = self._feed(block.scores, block.present, block.rows, frozen)
        alarms = [alarm for at, detector in fired.items() if (alarm := self._judge(at, detector, Place(*block.last))) is not None]
        for alarm in alarms:
            self._start_over(self.signals.index(alarm.signal))
        if self.mute:
            self._rouse(block.present, block.rows)
        return alarms, levels

    def _watch_shares(self, values: tuple[Ints | None, int], frozen: list[int], fired: dict[int, Detector]) -> None:
        present, rows = values
        for at, mean, weight, detector in self.share_watchers:
            share = 0.0 if present is None else 1.0 - float(present[at - self.bank.width]) / rows
            if at not in frozen and detector.update((share - mean) * weight):
                fired.setdefault(at, detector)

    def level(self, block: Block) -> Level | None:
        """Return the level of the signal of a lane that has but one."""
        known = self.baselines[0]
        present = block.rows if block.present is None else int(block.present[0])
        if len(self.signals) > 1 or known is None or not present:
            return None
        return Level(self.signals[0], known.raw(float(block.means[0])), present)

    def _wake(self, present: Ints, rows: int) -> None:
        woken = False
        for number in np.flatnonzero(present[: self.kind.shares] < rows).tolist():
            at = self.bank.width + number
            if self.detectors[at] or self.baselines[at] is None:
                continue
            self.watch(at)
            for detector in self.detectors[at]:
                for _ in range(min(self.history.count - 1 - self.since[at], MAX_SLEPT_BLOCKS)):
                    detector.update(0.0)
            woken = True
        if woken:
            self.rearm()

    def watch(self, at: int) -> None:
        """Give a signal new detectors."""
        self.detectors[at] = [Adwin(self.kind.delta)]
        if self.kind.careful:
            self.detectors[at].append(PageHinkley(self.config.page_hinkley_delta, self.config.page_hinkley_threshold))

    def _judge(self, at: int, detector: Detector, last: Place) -> Alarm | None:
        known = self.baselines[at]
        assert known is not None
        past = self.history.since(self.since[at])
        means, present = past.series(at)
        variance = known.row_sd**2 * known.correlation_rows
        split = best_split(means, present, variance)
        if split is None:
            return None
        shares = self.kind.binary or at >= self.bank.width
        evidence = split.evidence_of_shares() / known.correlation_rows if shares else split.evidence(variance)
        if evidence < MIN_EVIDENCE_SD**2:
            return None
        effect = (split.after - split.before) / known.row_sd
        if not abs(effect) >= self.config.min_effect:
            return None
        after = past.rows * (len(past.ts) - split.latest - 1)
        reach = min(-(-REFERENCE_ROWS // past.rows), split.at)
        return Alarm(
            signal=self.signals[at],
            detector=detector.name,
            parameters=detector.parameters(),
            before=known.raw(split.before),
            after=known.raw(split.after),
            effect=effect,
            row_sd=known.row_sd * known.scale,
            change=_place(past, split.at, last),
            start=_place(past, split.latest + 1, last),
            reference=_place(past, split.at - reach, last),
            rows=after,
            before_rows=split.rows_before,
            after_rows=split.rows_after,
            correlation_rows=known.correlation_rows,
            is_share=shares,
        )

    def effects_since(self, offset: int, least_blocks: int) -> dict[str, float]:
        """Return effects of number signals, in sd of a row, over the blocks that begin at or after `offset`, or the newest few."""
        newer = self.history.from_offset(offset)
        if len(newer.ts) < least_blocks:
            newer = self.history.newest(least_blocks)
        found = {}
        for at in range(self.bank.width):
            known, (means, present) = self.baselines[at], newer.series(at)
            if known is not None and present.sum() > 0:
                mean = float((np.where(present > 0, means, 0.0) * present).sum() / present.sum())
                found[self.signals[at]] = (mean - known.mean) / known.row_sd
        return found

    def _start_over(self, at: int) -> None:
        if len(self.signals) == 1:
            self.begin()
            return
        size = int(self.bank.block_rows[self.index])
        rows = math.ceil(self.config.warm_up_rows / size) * size
        self.baselines[at], self.detectors[at] = None, NO_DETECTORS
        self.warm_ups.append(WarmUp.of_signal(at, rows, at % self.bank.width))
        self.rearm()

    def _rouse(self, present: Ints | None, rows: int) -> None:
        """Start a warm-up for signals that had no values until now."""
        for at in self.mute:
            if present is None or present[at] * 2 >= rows:
                self._start_over(at)

    def _adopt(self, at: int, found: Baseline | None) -> None:
        self.baselines[at] = found
        self.detectors[at] = NO_DETECTORS
        if at < self.bank.width and found is not None:
            self.bank.center[self.index, at], self.bank.factor[self.index, at] = found.center, UNIT / found.scale
        if found is not None and (at < self.bank.width or found.mean > 0.0):
            self.watch(at)

    def prime(self, signals: list[int], blocks: int) -> None:
        """Let the detectors see the newest blocks, which the baselines were made of."""
        past, size = self.history.newest(blocks), int(self.bank.block_rows[self.index])
        means = past.means.T.tolist() if past.present is None else None
        for at in signals:
            known = self.baselines[at]
            if known is None or not self.detectors[at]:
                continue
            mean, sd = known.mean, known.block_sd(size)
            if means is not None and at < len(means):
                values = [(value - mean) / sd for value in means[at]]
            else:
                series, present = past.series(at)
                values = ((series - mean) / sd)[present > 0].tolist()
            for detector in self.detectors[at]:
                update = detector.update
                for value in values:
                    update(value)

    def _freeze_whole(self) -> list[Level]:
        warm_up, config = self.warm_ups[0], self.config
        for at, known in enumerate(first_baselines(warm_up.values, self.kind, config.clip_sd)):
            self._adopt(at, known)
        # One long-remembering signal sets the clock of its whole lane; a missing share that never was has no say.
        longest = max((known.correlation_rows for known in self.baselines if known is not None), default=1.0)
        size = baselines.block_rows(longest, self.kind.least_block_rows, config.max_block_rows, warm_up.rows)
        self.bank.restart(self.index, size)
        self.warm_ups = []
        blocks = warm_up.rows // size
        begin = warm_up.rows - blocks * size
        means, present = past_blocks(warm_up.values[begin:], size, self.baselines[: self.bank.width], config.clip_sd)
        starts, gaps = slice(begin, None, size), present if (present < size).any() else None
        places = warm_up.first[starts], warm_up.ts[starts]
        self.history.extend(Blocks(means, gaps, [], [], [size] * blocks, *places, [], []), 0, blocks)
        return self._armed(list(range(len(self.signals))), blocks)

    def _freeze_due(self) -> tuple[list[int], list[Level]]:
        """End the warm-ups of single signals that are complete; return the signals, whose detectors have seen the block at hand."""
        size = int(self.bank.block_rows[self.index])
        frozen: list[int] = []
        levels: list[Level] = []
        for warm_up in [warm_up for warm_up in self.warm_ups if warm_up.filled == warm_up.rows]:
            self.warm_ups.remove(warm_up)
            at, blocks = warm_up.signals[0], warm_up.rows // size
            known = baseline_of(warm_up.values[:, 0], self.kind, self.config.clip_sd, is_share=at >= self.bank.width)
            self._adopt(at, known)
            if known is not None and at < self.bank.width:
                z = known.transform(warm_up.values, self.config.clip_sd)
                self.history.rewrite(at, block_means(z.reshape(blocks, size, 1))[0][:, 0])
            levels += self._armed([at], blocks)
            frozen.append(at)
        return frozen, levels

    def _armed(self, signals: list[int], blocks: int) -> list[Level]:
        levels = []
        self.prime(signals, blocks)
        for at in signals:
            self.since[at] = self.history.count - blocks
            known = self.baselines[at]
            if known is not None:
                levels.append(Level(self.signals[at], known.raw(known.mean), self.config.warm_up_rows, fresh=True))
        self.rearm()
        return levels


def _place(past: Past, block: int, last: Place) -> Place:
    """Return the first row of a block, of the one to come behind the last."""
    if block == len(past.ts):
        return Place(last.offset + 1, last.label_offset + 1, last.ts)
    return Place(int(past.first[block, 0]), int(past.first[block, 1]), float(past.ts[block]))
