"""One log has one order, however its topics were fetched."""

import random

from hypothesis import given
from hypothesis import strategies as st

from driftloop.detectors.stream_time import StreamTime
from driftloop.streams.merge import Merge

KINDS = ("models", "predictions", "labels")
Item = tuple[str, int]


def wanted_order(logs: dict[str, list[int]]) -> list[Item]:
    placed = []
    for rank, kind in enumerate(KINDS):
        time = -1
        for index, stamp in enumerate(logs[kind]):
            time = max(time, stamp)
            placed.append((time, rank, index, kind))
    return [(kind, index) for _, _, index, kind in sorted(placed)]


def in_batch_order(released: dict[str, tuple[list[Item], list[int]]], times: dict[str, int]) -> list[Item]:
    placed = []
    for rank, kind in enumerate(KINDS):
        for item, stamp in zip(*released.get(kind, ([], [])), strict=True):
            times[kind] = max(times[kind], stamp)
            placed.append((times[kind], rank, item[1], item))
    return [place[3] for place in sorted(placed)]


stamps = st.lists(st.integers(0, 12), max_size=30)


@given(st.fixed_dictionaries(dict.fromkeys(KINDS, stamps)), st.integers(0, 2**32))
def test_any_interleaving_gives_one_order(logs: dict[str, list[int]], seed: int) -> None:
    chance = random.Random(seed)
    merge: Merge[Item] = Merge(KINDS, {})
    at, times, merged, ended = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, -1), [], set()
    while len(ended) < len(KINDS):
        kind = chance.choice([kind for kind in KINDS if kind not in ended])
        count = chance.randrange(8)
        chunk = logs[kind][at[kind] : at[kind] + count]
        items = [(kind, at[kind] + index) for index in range(len(chunk))]
        at[kind] += len(chunk)
        end = at[kind] == len(logs[kind]) and chance.random() < 0.5
        ended |= {kind} if end else set()
        merge.add(kind, items, chunk, at_end=end)
        merged += in_batch_order(merge.release(), times)
    assert merged == wanted_order(logs)


@given(st.fixed_dictionaries(dict.fromkeys(KINDS, stamps)))
def test_reading_only_what_is_wanted_reads_everything(logs: dict[str, list[int]]) -> None:
    merge: Merge[Item] = Merge(KINDS, {})
    at, released = dict.fromkeys(KINDS, 0), 0
    for _ in range(400):
        for kind in KINDS:
            if merge.wanted(kind):
                chunk = logs[kind][at[kind] : at[kind] + 3]
                at[kind] += len(chunk)
                merge.add(kind, [(kind, 0)] * len(chunk), chunk, at_end=at[kind] == len(logs[kind]))
        released += sum(len(items) for items, _ in merge.release().values())
    assert released == sum(map(len, logs.values()))


def test_a_topic_that_may_have_more_holds_the_others_up() -> None:
    merge: Merge[str] = Merge(KINDS, {})
    merge.add("models", [], [], at_end=True)
    merge.add("predictions", ["a", "b"], [5, 9], at_end=False)
    assert merge.release() == {}
    merge.add("labels", ["x"], [5], at_end=False)
    assert merge.release() == {"predictions": (["a"], [5]), "labels": (["x"], [5])}
    merge.add("labels", [], [], at_end=True)
    assert merge.release() == {"predictions": (["b"], [9])}


def test_stream_time_of_restored_state_holds() -> None:
    merge: Merge[str] = Merge(KINDS, {"predictions": StreamTime((100, 0, 0))})
    merge.add("models", [], [], at_end=True)
    merge.add("labels", ["x", "y"], [99, 100], at_end=False)
    assert merge.release() == {"labels": (["x"], [99])}
