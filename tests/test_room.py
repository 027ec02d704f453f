"""Room: what models take is counted, what does not fit is refused by the bound it meets first, and a goal leaves a share free."""

import pytest

from driftloop.detectors.pending import WIDEST
from driftloop.detectors.room import NOTHING, Room, Size, size_of, size_of_signature
from driftloop.schemas.config import MonitorConfig
from driftloop.schemas.events import Signature

CONFIG = MonitorConfig(max_models=10, max_total_features=100, max_total_classes=50)


def test_a_model_takes_itself_its_features_and_the_classes_whose_scores_are_kept() -> None:
    assert size_of(5, 3) == Size(1, 5, 3)
    assert size_of(5, 1_000) == Size(1, 5, WIDEST)
    assert size_of_signature(Signature(task="classification", features=("a", "b"), classes=(0, 1, 2))) == Size(1, 2, 3)
    assert Size(1, 5, 3).less(Size(1, 2, 3)) == Size(0, 3, 0)


@pytest.mark.parametrize(
    ("size", "setting"),
    [(Size(1, 50, 20), None), (Size(1, 51, 0), "max_total_features"), (Size(1, 0, 21), "max_total_classes")],
)
def test_the_bound_that_leaves_no_room_is_named(size: Size, setting: str | None) -> None:
    room = Room(CONFIG)
    room.take(Size(3, 50, 30))
    refusal = room.refusal("fraud", size)
    assert room.lacks(size) == setting
    assert (None if refusal is None else refusal.setting) == setting
    if refusal is not None:
        assert "'fraud'" in str(refusal)
        assert refusal.disposition == "over_limit"


def test_what_goes_makes_room_and_what_shrinks_is_never_refused() -> None:
    room = Room(CONFIG)
    room.take(Size(10, 100, 50))
    assert room.lacks(size_of(1, 1)) == "max_models"
    assert room.lacks(Size(0, -3, 0)) is None
    room.take(NOTHING.less(Size(1, 10, 5)))
    assert room.lacks(size_of(10, 5)) is None


def test_the_goal_is_room_for_what_was_wanted_and_a_share_of_everything() -> None:
    room = Room(CONFIG)
    room.take(Size(5, 99, 10))
    assert room.has_goal(), "one of a hundred is the share"
    room.want(Size(1, 20, 0))
    room.want(Size(1, 2, 30))
    assert room.wanted == Size(1, 20, 30)
    assert not room.has_goal()
    room.take(Size(0, -19, 0))
    assert room.has_goal()
    room.want(Size(1, 10_000, 0))
    room.take(Size(-5, -80, -10))
    assert room.has_goal(), "more than all there is cannot be waited for"
