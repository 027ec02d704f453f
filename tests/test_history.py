"""The history of a lane: many blocks at once are what they are one by one, and the newest stay."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.detectors.blocks import Block, Blocks
from driftloop.detectors.history import History, Past

CAPACITY = 20


def blocks_of(count: int, seed: int, gaps: bool) -> Blocks:
    rng = np.random.default_rng(seed)
    present = rng.integers(1, 9, (count, 3)) if gaps else None
    first = np.arange(2 * count).reshape(count, 2) + 1_000 * seed
    places = (first, np.arange(count) * 0.5)
    return Blocks(rng.normal(size=(count, 3)), present, [gaps] * count, [], [8] * count, *places, [], [])


def push(history: History, blocks: Blocks) -> None:
    for at, ts in enumerate(blocks.first_ts.tolist()):
        offset, label_offset = blocks.first[at].tolist()
        present = None if blocks.present is None else blocks.present[at]
        history.push(Block(blocks.means[at], present, [], 8, (offset, label_offset, ts), 0, (0, 0, 0.0)))


def plain(past: Past) -> tuple[object, ...]:
    series = [[column.tolist() for column in past.series(signal)] for signal in range(6)]
    return past.rows, past.first.tolist(), past.ts.tolist(), series


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 70), st.booleans()), min_size=1, max_size=6))
def test_blocks_at_once_are_blocks_one_by_one(pieces: list[tuple[int, bool]]) -> None:
    at_once, one_by_one = History(CAPACITY, 3), History(CAPACITY, 3)
    for seed, (count, gaps) in enumerate(pieces):
        blocks = blocks_of(count, seed, gaps)
        at_once.extend(blocks, 0, count)
        push(one_by_one, blocks)
        assert at_once.count == one_by_one.count
        assert plain(at_once.newest(CAPACITY)) == plain(one_by_one.newest(CAPACITY))
    known = at_once.newest(CAPACITY)
    assert len(known.ts) == min(CAPACITY, at_once.count)
    assert plain(at_once.since(at_once.count - 3)) == plain(at_once.newest(3))
    other = History(CAPACITY, 3)
    other.restore(known, at_once.count)
    assert plain(other.newest(CAPACITY)) == plain(known)


def test_a_rewritten_signal_keeps_its_older_means() -> None:
    history = History(CAPACITY, 3)
    history.extend(blocks_of(10, 1, gaps=False), 0, 10)
    before = history.newest(10).means.copy()
    history.rewrite(1, np.full(4, 7.0))
    after = history.newest(10).means
    assert (after[:6] == before[:6]).all()
    assert (after[6:, 1] == 7.0).all()
    assert (after[:, [0, 2]] == before[:, [0, 2]]).all()
