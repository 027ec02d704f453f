"""Features of events become the numbers that a model takes: by name or in order, texts by their place."""

import math

import numpy as np
import pytest

from driftloop.schemas.errors import EventInvalid
from driftloop.schemas.events import Signature
from driftloop.schemas.feature_row import FeatureRows

SIGNATURE = Signature(
    task="regression", features=("amount", "colour", "zone"), categories={"colour": ("red", "blue"), "zone": ("1", "22")}
)
ROWS = FeatureRows(SIGNATURE)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({"amount": 2.5, "colour": "blue", "zone": "22"}, [2.5, 1.0, 1.0]),
        ({"zone": 1, "colour": "green", "amount": True, "more": 7}, [1.0, -1.0, 0.0]),
        (["3", "red", 22.0], None),
        ([3, "red", 22.0], [3.0, 0.0, 1.0]),
        ((np.float32(0.5), "red", 2.5), [0.5, 0.0, -1.0]),
    ],
)
def test_numbers_stay_and_texts_become_places(features: object, wanted: list[float] | None) -> None:
    if wanted is None:
        with pytest.raises(EventInvalid, match="must be a number, got text in 'amount'"):
            ROWS.row(features)  # type: ignore[arg-type]
        return
    assert ROWS.row(features) == wanted  # type: ignore[arg-type]


def test_what_is_missing_is_nan_of_either_kind() -> None:
    assert all(math.isnan(number) for number in ROWS.row({}))
    assert all(math.isnan(number) for number in ROWS.row([None, None, math.nan]))


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(EventInvalid, match="must be 3 in the signature's order, got 2"):
        ROWS.row([1.0, 2.0])


def test_names_that_are_all_others_are_no_row_of_gaps() -> None:
    with pytest.raises(EventInvalid, match="must have names of the signature, got 'betrag'"):
        ROWS.row({"betrag": 1.0})
