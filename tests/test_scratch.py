"""Scratch memory is used over and over, and beyond a bound it is not kept."""

from driftloop.detectors.scratch import KEPT_NUMBERS, Scratch


def test_the_same_memory_is_given_again() -> None:
    scratch = Scratch()
    first = scratch.take((10, 20))
    first[:] = 7.0
    second = scratch.take((4, 5))
    assert second.shape == (4, 5)
    assert (second == 7.0).all()
    assert scratch.take((300, 1)).shape == (300, 1)
    assert scratch.take((0, 3)).size == 0


def test_what_is_large_is_given_back() -> None:
    scratch = Scratch()
    assert scratch.take((KEPT_NUMBERS + 1,)).size == KEPT_NUMBERS + 1
    assert len(scratch._held) == 0
