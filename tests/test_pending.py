"""The join buffer: rows are found by id however it grows, ages and is saved."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.detectors.pending import COLUMNS, START_ROWS, SUPERSEDED, WAITING, NewRows, Pending, fingerprints
from driftloop.detectors.pending_parts import GRID_ROWS, PendingParts


def ids_of(first: int, count: int) -> np.ndarray:
    """Return ids of which every eight begin at one place of the table."""
    numbers = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    return np.stack([(numbers // np.uint64(8)) * np.uint64(0x9E3779B97F4A7C15), numbers], axis=1)


def add(pending: Pending, count: int, width: int = 2) -> np.ndarray:
    first = pending.head
    rows = np.arange(first, first + count)
    # Each id is answered once: no row has an older one of its id behind it.
    columns = {name: (rows if name != "back" else np.zeros(count)).astype(kind) for name, kind in COLUMNS.items()}
    added = pending.append(NewRows(ids_of(first, count), columns, np.full((count, width), 0.5, np.float32)))
    pending.index(added)
    return added


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 700)), max_size=12))
def test_rows_are_found_while_they_are_held(steps: list[tuple[int, int]]) -> None:
    pending, oldest = Pending(), 0
    for count, gone in steps:
        add(pending, count)
        oldest = min(oldest + gone, pending.head)
        pending.age(oldest, 2_000)
        expected = np.arange(pending.head)
        expected[: pending.tail] = -1
        np.testing.assert_array_equal(pending.find(ids_of(0, pending.head)), expected)
        assert pending.tail == max(oldest, pending.head - 2_000)
    assert (pending.find(ids_of(10**6, 50)) == -1).all()


def test_a_superseded_row_gives_way_to_the_new_one() -> None:
    pending = Pending()
    add(pending, 3)
    pending.mark(np.array([1]), SUPERSEDED)
    columns = {name: np.array([7]).astype(kind) for name, kind in COLUMNS.items()}
    pending.index(pending.append(NewRows(ids_of(1, 1), columns, np.zeros((1, 0), np.float32))))
    assert pending.find(ids_of(0, 3)).tolist() == [0, 3, 2]
    assert np.isnan(pending.scores(np.array([3]))).all()


def test_scores_widen() -> None:
    pending = Pending()
    add(pending, 2, 1)
    add(pending, 2, 3)
    assert pending.width == 3
    np.testing.assert_array_equal(np.isnan(pending.scores(np.arange(4))).sum(axis=1), [2, 2, 0, 0])


def test_two_hundred_bytes_a_row_at_most() -> None:
    pending = Pending()
    for _ in range(16):
        add(pending, 65_536 // 16, 10)
    assert len(pending) == 65_536
    assert pending.size_bytes / len(pending) <= 200


def test_fingerprints_are_no_marks() -> None:
    marks = fingerprints(np.linspace(-5, 5, 10_001))
    assert marks.min() > SUPERSEDED > WAITING
    assert len(np.unique(marks)) == 254
    assert fingerprints(np.array([0.0, -0.0])).tolist() == [fingerprints(np.zeros(1))[0]] * 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 2_500), st.booleans()), max_size=8), st.randoms())
def test_parts_put_the_buffer_together_again(steps: list[tuple[int, int, bool]], rng: object) -> None:
    pending = Pending()
    parts, held = PendingParts(pending), {}
    oldest, random = 0, np.random.default_rng(len(steps))
    for count, gone, save in steps:
        add(pending, count)
        oldest = min(oldest + gone, pending.head)
        pending.age(oldest, 10**6)
        if len(pending):
            rows = np.unique(random.integers(pending.tail, pending.head, 20))
            pending.mark(rows, 9)
            parts.touch(rows)
        if save:
            for name, data in parts.take().items():
                held.pop(name, None)
                if data is not None:
                    held[name] = data
            other = Pending()
            PendingParts(other).restore(held, pending.tail, pending.head)
            check_equal(pending, other)
            assert len(held) <= 2 * (len(pending) // GRID_ROWS + 2) + len(steps)
    other = Pending()
    PendingParts(other).restore(parts.whole(), pending.tail, pending.head)
    check_equal(pending, other)


def check_equal(mine: Pending, other: Pending) -> None:
    rows = np.arange(mine.tail, mine.head)
    for name in COLUMNS:
        np.testing.assert_array_equal(mine.column(name, rows), other.column(name, rows))
    np.testing.assert_array_equal(mine.marks(rows), other.marks(rows))
    np.testing.assert_array_equal(other.find(mine.ids(rows)), rows)
    if len(rows):
        np.testing.assert_array_equal(mine.scores(rows)[:, : other.width], other.scores(rows))


def test_a_save_costs_what_changed() -> None:
    pending = Pending()
    parts = PendingParts(pending)
    add(pending, 40 * GRID_ROWS)
    parts.take()
    assert parts.take() == {}
    add(pending, 10)
    assert list(parts.take()) == [f"p/40.{40 * GRID_ROWS}"]
    pending.mark(np.array([5]), 3)
    parts.touch(np.array([5]))
    assert list(parts.take()) == ["m/0"]
    assert START_ROWS <= GRID_ROWS
