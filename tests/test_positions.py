"""A row lies where its prediction or its label does, on the topic of that kind."""

import pytest

from driftloop.detectors.alarms import Place
from driftloop.detectors.positions import Positions


@pytest.mark.parametrize(("kind", "offset"), [("predictions", 7), ("labels", 9)])
def test_a_row_lies_where_its_record_does(kind: str, offset: int) -> None:
    found = Positions("shop.", 3).of(kind, Place(7, 9, 12.5))
    assert (found.topic, found.partition, found.offset, found.ts) == (f"shop.{kind}", 3, offset, 12.5)
