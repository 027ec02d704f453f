"""Labels that came first answer later versions of the same request for as long as predictions are remembered, and no longer."""

from driftloop.detectors.answered import MOST_ANSWERED, Answered


def test_a_label_is_found_within_the_window() -> None:
    answered = Answered(1_000)
    answered.add(b"a", "yes", 7, 500)
    found = answered.find(b"a", 1_500)
    assert found is not None
    assert (found.value, found.offset) == ("yes", 7)
    assert answered.find(b"a", 1_501) is None
    assert answered.find(b"b", 500) is None


def test_of_too_many_the_oldest_gives_way_and_a_repeated_one_is_new() -> None:
    answered = Answered(1_000)
    for at in range(MOST_ANSWERED):
        answered.add(b"%d" % at, at, at, 0)
    answered.add(b"0", "again", 0, 0)
    answered.add(b"more", 1, 1, 0)
    assert answered.find(b"1", 0) is None
    again = answered.find(b"0", 0)
    assert again is not None
    assert again.value == "again"


def test_the_state_is_one_part_that_is_given_once() -> None:
    answered = Answered(1_000)
    assert answered.parts(whole=True) == {}
    answered.add(b"a", 1.5, 7, 500)
    part = answered.parts(whole=False)
    answered.clean()
    assert answered.parts(whole=False) == {}
    assert answered.parts(whole=True) == part
    restored = Answered(1_000)
    restored.restore(part["a"])
    assert restored.find(b"a", 500) == answered.find(b"a", 500)
    restored.restore(None)
    assert restored.find(b"a", 500) is None
