"""A champion as a function of features, whatever inputs its exporter gave it."""

import hashlib
from typing import Any

import numpy as np
import pytest

from driftloop.compression.adoption import adopt
from driftloop.compression.seen import Adoption
from driftloop.schemas.errors import EventInvalid
from driftloop.streams.predictor import Predictor
from driftloop.streams.publishing import adopted_signature
from driftloop.streams.watcher import PromotedModel
from driftloop.tests.exported import FOLDER, expected, mixed, mixed_rows


def served(name: str, features: tuple[str, ...] = (), classes: tuple[Any, ...] = (), squash: str = "") -> Predictor:
    made = adopt((FOLDER / f"{name}.onnx").read_bytes(), Adoption(squash))
    signature = adopted_signature(made, features, classes)
    return PromotedModel("m", 1, hashlib.sha256(made.onnx).hexdigest(), signature, made.onnx).predictor()


def test_rows_by_name_with_texts_are_answered_as_the_source_does() -> None:
    predict, rows, wanted = served("mixed_forest"), mixed_rows("mixed_forest=two"), mixed()["mixed_forest=two"]
    np.testing.assert_allclose(predict.scores(rows), wanted, atol=1e-5)
    answer = predict(rows[0])
    assert answer.output == int(wanted[0].argmax())
    assert answer.scores is not None
    assert predict(dict(reversed(rows[0].items()))) == predict(list(rows[0].values())) == answer
    assert [one.output for one in predict.many(rows)] == wanted.argmax(axis=1).tolist()


def test_what_is_not_given_is_missing() -> None:
    predict = served("mixed_logistic")
    row = {"amount": 1.0, "age": 0.5, "visits": 2, "colour": "red", "size": "small"}
    assert predict(row) != predict({**row, "amount": None})
    assert predict({name: value for name, value in row.items() if name != "amount"}) == predict({**row, "amount": None})


def test_an_array_of_numbers_goes_in_as_it_is() -> None:
    predict, rows = served("lgb_words", ("a", "b", "c", "d")), expected()["rows"]
    scores = predict.scores(rows.astype(np.float32))
    np.testing.assert_allclose(scores, expected()["lgb_words.words"], atol=1e-5)
    assert {answer.output for answer in predict.many(rows)} == {"no", "yes"}
    assert predict(rows[0]).scores == scores[0].tolist()
    assert predict.scores([]).shape == (0, 2)
    assert predict.many([]) == []
    for odd in (rows[0].astype(np.float32), rows[:, :3]):
        with pytest.raises(EventInvalid, match="must be rows of 4 numbers"):
            predict.scores(odd)


def test_a_regression_has_a_number_and_no_scores() -> None:
    predict = served("cat_number", ("a", "b", "c", "d"))
    answer = predict(expected()["rows"][0])
    assert answer.output == pytest.approx(float(expected()["cat_number.number"][0, 0]), abs=1e-5)
    assert answer.scores is None


def test_one_sigmoid_is_two_scores() -> None:
    predict = served("xgb_number", ("a", "b", "c", "d"), ("no", "yes"), "sigmoid")
    scores = predict(expected()["rows"][0]).scores
    assert scores is not None
    assert len(scores) == 2
    assert sum(scores) == pytest.approx(1.0)


def test_a_text_where_a_number_belongs_is_refused_by_name() -> None:
    with pytest.raises(EventInvalid, match="got text in 'amount'"):
        served("mixed_forest")({"amount": "much"})
