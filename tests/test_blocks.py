"""Blocks: sums over lanes equal plain sums, and the fast and the slow way agree to the bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.detectors.blocks import UNIT, Bank, Block, Feed, Flow


class Nothing:
    def absorb(self, feed: Feed, rows: slice) -> None:
        pass


def bank_of(lanes: int, width: int, slow: bool) -> Bank:
    bank = Bank(width, 8.0)
    for number in range(lanes):
        at = bank.add(Nothing())
        bank.center[at], bank.factor[at] = number, UNIT / (1.0 + number)
        bank.weight[at] = 2.0
        bank.restart(at, 5 + number)
        bank.slow[at] = slow
    return bank


def feed_of(lane: np.ndarray, values: np.ndarray, start: int) -> Feed:
    order = start + np.arange(len(lane))
    return Feed(lane, values, order, order * 10, order * 100, order * 0.5)


def drain(bank: Bank, feed: Feed) -> list[tuple[int, int, Block]]:
    flow = Flow(bank, feed)
    waiting = list(flow.blocks())
    found = []
    while waiting:
        waiting.sort()
        order, run = waiting.pop(0)
        block = flow.take(run)
        found.append((order, flow.lane(run), block))
        flow.handled(run, block)
        following = flow.peek(run)
        if following is not None:
            waiting.append((following, run))
    return found


def plain(block: Block) -> tuple[object, ...]:
    present = None if block.present is None else tuple(block.present.tolist())
    return tuple(np.nan_to_num(block.means, nan=-99.0)), present, block.rows, block.first, block.last


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    lanes=st.integers(1, 4),
    seed=st.integers(0, 99),
    slow=st.booleans(),
)
def test_blocks_do_not_depend_on_cuts_or_the_way_they_are_summed(sizes: list[int], lanes: int, seed: int, slow: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = 240
    lane, values = rng.integers(0, lanes, rows), rng.normal(size=(rows, 2)) * 5
    values[rng.random((rows, 2)) < 0.1] = np.nan
    expected = [(order, at, plain(block)) for order, at, block in drain(bank_of(lanes, 2, slow=False), feed_of(lane, values, 0))]
    bank, found, start, turn = bank_of(lanes, 2, slow), [], 0, 0
    while start < rows:
        stop = min(rows, start + sizes[turn % len(sizes)])
        found += [(o, at, plain(block)) for o, at, block in drain(bank, feed_of(lane[start:stop], values[start:stop], start))]
        start, turn = stop, turn + 1
    assert found == expected


def test_a_block_is_the_mean_of_its_clipped_rows() -> None:
    bank = bank_of(1, 1, slow=False)
    values = np.array([0.5, -0.25, np.nan, 1e300, 2.0])[:, None]
    (_, _, block), *more = drain(bank, feed_of(np.zeros(5, np.int64), values, 7))
    assert not more
    assert block.means[0] == (0.5 - 0.25 + 8.0 + 2.0) / 4
    assert block.scores[0] == block.means[0] * 2.0 * np.sqrt(4 / 5)
    assert (block.rows, block.first, block.last) == (5, (70, 700, 3.5), (110, 1100, 5.5))


def test_dropped_lanes_are_used_again() -> None:
    bank = bank_of(3, 1, slow=False)
    bank.drop(1)
    assert bank.add(Nothing()) == 1
    assert bank.add(Nothing()) == 3
