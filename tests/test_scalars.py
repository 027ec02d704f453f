"""Scalars: what is said of many values at once is what is said of each."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.detectors.scalars import FEW, distinct, numbers_of, translated, types_of

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "classes": st.integers(0, 5),
    "truths": st.booleans(),
    "texts": st.sampled_from(["a", "b", "ü"]),
    "mixed": st.sampled_from(["a", 1, True, None]),
    "fractions": st.sampled_from([0.5, -1.5, 2.0]),
    "large": st.sampled_from([2**53, -3, 10**6]),
    "huge": st.sampled_from([10**400, 1]),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), slots=st.integers(0, 3), count=st.sampled_from([1, FEW - 1, FEW, 3 * FEW]), as_array=st.booleans())
def test_what_is_asked_of_each_distinct_value_is_told_for_each_row(
    kind: str, data: st.DataObject, slots: int, count: int, as_array: bool
) -> None:
    values = data.draw(st.lists(KINDS[kind], min_size=count, max_size=count))
    models = np.array(data.draw(st.lists(st.integers(0, slots), min_size=count, max_size=count)), np.int64)
    numbers = numbers_of(values, types_of(values))
    said = numbers if as_array and numbers is not None else values
    pairs = set(zip(models.tolist(), values, strict=True))
    assert distinct(models, said, numbers) == pairs
    found = {pair: float(at) for at, pair in enumerate(sorted(pairs, key=repr))}
    expected = [found[pair] for pair in zip(models.tolist(), values, strict=True)]
    assert translated(models, said, numbers, found).tolist() == expected


def test_nothing_says_nothing() -> None:
    assert distinct(np.zeros(0, np.int64), [], np.zeros(0)) == set()


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 0.5, True], [1.0, 0.5, 1.0]), ([1, "a"], None), ([None], None), ([10**400], None)]
)
def test_numbers_are_told_from_other_values(values: list[Any], expected: list[float] | None) -> None:
    found = numbers_of(values, types_of(values))
    assert (found if found is None else found.tolist()) == expected


@pytest.mark.parametrize("column", [np.array([1, 2], np.uint8), np.array([True, False]), np.array([0.5, np.nan])])
def test_a_column_of_numbers_is_taken_as_it_is(column: np.ndarray) -> None:
    found = numbers_of(column, types_of(column))
    assert found is not None
    assert found.dtype == np.float64
    assert found.tobytes() == column.astype(np.float64).tobytes()
