"""Alike: what is decoded as one array is what the strict decoders give record by record, and the rest is left to them."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest

from driftloop.detectors import alike
from driftloop.detectors.alike import MOST_SCORES, Unlike, alike_labels, alike_predictions
from driftloop.detectors.decoding import FEATURES, PACKED_START, columns_of_packed, label_rows, packed_rows
from driftloop.detectors.monitor import Monitor
from driftloop.detectors.pieces import Keys
from driftloop.schemas.codecs import PackedLabel, PackedPrediction, encode_msgpack, pack_features
from driftloop.schemas.layouts import PACKED_FIELDS, layout
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, merged, play, record, small, told

LAYOUT = layout(("a", "b", "ü"), (True,) * 3)
NAMES = LAYOUT.joined_names
NAN, INF = float("nan"), float("inf")
LIMIT = 10_000
ROWS = 40
Rows = list[tuple[bytes, bytes]]


def prediction(rng: random.Random, **changes: Any) -> bytes:
    """Return a packed prediction with random values, changed."""
    values: dict[str, Any] = {
        "model": "model-1",
        "version": 3,
        "prediction_id": rng.randbytes(8).hex(),
        "ts": rng.choice([1.7e9 + rng.random(), NAN, -INF]),
        "output": rng.randrange(128),
        "features": pack_features([rng.choice([rng.gauss(0, 1), None]) for _ in range(3)]),
    }
    return encode_msgpack(PackedPrediction(**values | {name: call(rng) for name, call in changes.items()}))


def label(rng: random.Random, **changes: Any) -> bytes:
    """Return a packed label with random values, changed."""
    values: dict[str, Any] = {"model": "model-1", "prediction_id": rng.randbytes(8).hex(), "label": rng.randrange(128)}
    return encode_msgpack(PackedLabel(**values | {name: call(rng) for name, call in changes.items()}))


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "names": {"names": lambda rng: NAMES},
    "truths": {"output": lambda rng: rng.random() < 0.5},
    "fractions": {"output": lambda rng: rng.choice([rng.gauss(0, 1), NAN, 1e300])},
    "scores": {"scores": lambda rng: [rng.choice([rng.random(), NAN]), rng.random()]},
    "most scores": {"scores": lambda rng: [rng.random() for _ in range(MOST_SCORES)]},
    "latency": {"latency_ms": lambda rng: rng.expovariate(1), "segment": lambda rng: "a segment"},
    "long ids": {"prediction_id": lambda rng: rng.randbytes(128).hex()},
    "signalling NaN": {"features": lambda rng: b"\x01\x00\x80\x7f" + pack_features([rng.gauss(0, 1), None])},
    "all": {"scores": lambda rng: [rng.random()] * 3, "names": lambda rng: NAMES, "latency_ms": lambda rng: INF},
}
LABEL_FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "times": {"ts": lambda rng: rng.choice([1.7e9 + rng.random(), NAN])},
    "truths": {"label": lambda rng: rng.random() < 0.5},
    "fractions": {"label": lambda rng: rng.gauss(0, 1)},
}
ODD: dict[str, dict[str, Any]] = {
    "id of another length": {"prediction_id": lambda rng: "abc"},
    "id that is no ASCII": {"prediction_id": lambda rng: "ü" * 8},
    "id of other bytes": {"prediction_id": lambda rng: "x" * 16},
    "model of another name": {"model": lambda rng: "model-2"},
}
ODD_PREDICTIONS: dict[str, dict[str, Any]] = {
    **ODD,
    "another version": {"version": lambda rng: 4},
    "no version": {"version": lambda rng: 0},
    "large output": {"output": lambda rng: 128},
    "negative output": {"output": lambda rng: -1},
    "text output": {"output": lambda rng: "a"},
    "no output": {"output": lambda rng: None},
    "truth": {"output": lambda rng: True},
    "fraction": {"output": lambda rng: 0.5},
    "whole time": {"ts": lambda rng: 1_700_000_000},
    "features too few": {"features": lambda rng: b"\x00" * 8},
    "other names": {"names": lambda rng: "x\ny\nzz"},
    "whole scores": {"scores": lambda rng: [1, 0]},
    "no scores": {"scores": lambda rng: []},
    "many scores": {"scores": lambda rng: [0.5] * (MOST_SCORES + 1)},
    "segment": {"segment": lambda rng: "other"},
    "latency": {"latency_ms": lambda rng: 2.5},
}
ODD_LABELS: dict[str, dict[str, Any]] = {
    **ODD,
    "taken back": {"label": lambda rng: None},
    "text": {"label": lambda rng: "a"},
    "large": {"label": lambda rng: 1 << 40},
    "with a time": {"ts": lambda rng: 1.7e9},
}


def same(column: Any, expected: Any) -> bool:
    """Return whether a column, perhaps an array, holds these values and kinds of values; NaN is equal to itself."""
    found = (
        column.tolist() if isinstance(column, np.ndarray) else [one.decode() if isinstance(one, bytes) else one for one in column]
    )
    return repr(found) == repr(list(expected))


def predictions_agree(rows: Rows) -> bool:
    """Return whether the records are read as one array; then check that they are what the strict decoder makes of each."""
    values, keys = [value for _, value in rows], [key for key, _ in rows]
    try:
        (models, *found), features = alike_predictions(values, Keys.of(keys), LAYOUT, LIMIT)
    except Unlike:
        return False
    strict = packed_rows(values, [LAYOUT], PACKED_START + PACKED_FIELDS)
    assert None not in strict
    assert models is None
    columns = list(zip(*map(columns_of_packed, strict), strict=True))
    assert list(columns[0]) == [key.decode() for key in keys]
    assert all(same(column, said) for column, said in zip(found, columns[1:], strict=True))
    with np.errstate(invalid="ignore"):
        expected = np.frombuffer(b"".join(row[FEATURES] for row in strict), np.float32).astype(np.float64)
    assert features.tobytes() == expected.tobytes()
    return True


def labels_agree(rows: Rows) -> bool:
    """Do the same with labels."""
    values, keys = [value for _, value in rows], [key for key, _ in rows]
    try:
        models, *found = alike_labels(values, Keys.of(keys), LIMIT)
    except Unlike:
        return False
    strict = label_rows(list(values), LIMIT)
    assert None not in strict
    assert models is None
    columns = list(zip(*strict, strict=True))
    assert list(columns[0]) == [key.decode() for key in keys]
    assert all(same(column, said) for column, said in zip(found, columns[1:], strict=True))
    return True


def keyed(rng: random.Random, make: Any, form: dict[str, Any], models: int = 1) -> Rows:
    """Return records of one form, of so many models in turn."""
    names = [f"model-{at % models + 1}" for at in range(ROWS)]
    return [(name.encode(), make(rng, **form | {"model": lambda _, name=name: name})) for name in names]


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_predictions_of_one_form_are_read_as_one(form: str, models: int) -> None:
    assert predictions_agree(keyed(random.Random(form), prediction, FORMS[form], models))


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_of_one_form_are_read_as_one(form: str, models: int) -> None:
    assert labels_agree(keyed(random.Random(form), label, LABEL_FORMS[form], models))


@pytest.mark.parametrize("at", [0, ROWS // 2, ROWS - 1])
def test_an_odd_record_is_left_to_the_strict_decoder(at: int) -> None:
    rng = random.Random(at)
    # An id or a value of the same size is no other form.
    fits = {"id of other bytes"}
    for kinds, make, agree in ((ODD_PREDICTIONS, prediction, predictions_agree), (ODD_LABELS, label, labels_agree)):
        for odd, change in kinds.items():
            rows = keyed(rng, make, {})
            rows[at] = (b"model-1", make(rng, **change))
            assert agree(rows) == (odd in fits), odd


def test_forms_that_are_not_read_are_left_to_the_strict_decoder() -> None:
    rng = random.Random(1)
    for odd in ("id that is no ASCII", "large output", "text output", "whole time", "whole scores", "no scores", "many scores"):
        assert not predictions_agree(keyed(rng, prediction, ODD_PREDICTIONS[odd])), odd
    for odd in ("taken back", "text", "large"):
        assert not labels_agree(keyed(rng, label, ODD_LABELS[odd])), odd


def test_few_records_too_large_ones_and_missing_ones_are_left_to_the_strict_decoder() -> None:
    rows = keyed(random.Random(2), prediction, {})
    assert not predictions_agree(rows[: alike.LEAST_ROWS - 1])
    values, keys = [value for _, value in rows], [key for key, _ in rows]
    for at, value in ((0, None), (5, None), (5, b""), (0, b"")):
        with pytest.raises(Unlike):
            alike_labels([*values[:at], value, *values[at + 1 :]], Keys.of(keys), LIMIT)
    with pytest.raises(Unlike):
        alike_predictions(values, Keys.of(keys), LAYOUT, len(values[0]) - 1)
    with pytest.raises(Unlike):
        alike_predictions(values, Keys.of(keys), layout(("a", "b"), (True, True)), LIMIT)
    with pytest.raises(Unlike):
        alike_predictions(values, Keys.of([b"model-2"] * ROWS), LAYOUT, LIMIT)


def test_records_that_are_whole_only_together_are_not_read() -> None:
    rows = keyed(random.Random(3), prediction, {})
    rows[4:6] = [(rows[4][0], rows[4][1] + rows[5][1][:1]), (rows[5][0], rows[5][1][1:])]
    assert not predictions_agree(rows)
    turned = keyed(random.Random(3), prediction, {}, models=2)
    turned[0], turned[1] = (turned[0][0] + b"m", turned[0][1]), (turned[1][0][1:], turned[1][1])
    assert not predictions_agree(turned)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_change_what_is_read_is_what_the_strict_decoder_gives(seed: int) -> None:
    rng = random.Random(seed)
    read = 0
    for _ in range(100):
        make, forms, agree = rng.choice(((prediction, FORMS, predictions_agree), (label, LABEL_FORMS, labels_agree)))
        rows = keyed(rng, make, forms[rng.choice(list(forms))], rng.choice([1, 1, 3]))
        for at in rng.sample(range(ROWS), rng.choice([0, 1, 1, ROWS])):
            key, value = rows[at]
            place = rng.randrange(len(value))
            rows[at] = (
                key,
                value[:place]
                + bytes([rng.choice([0, 0x7F, 0x80, 0xC0, 0xC2, 0xC3, 0xCB, rng.randrange(256)])])
                + value[place + 1 :],
            )
        read += agree(rows)
    assert 10 < read < 90


def log_of(seed: int) -> list[Record]:
    """Return packed records of two models, now and then an odd one or broken bytes."""
    rng = random.Random(seed)
    found = []
    for at in range(600):
        model = f"model-{at % 2}"
        told = {
            "model": lambda _, model=model: model,
            "prediction_id": lambda _, at=at: f"{at:08d}",
            "ts": lambda _: START_MS / 1000,
        }
        made = prediction(rng, **told, output=lambda rng: rng.randrange(2))
        said = label(rng, **told, label=lambda rng: rng.randrange(2))
        if at > 200 and rng.random() < 0.01:
            made = prediction(rng, **told | ODD_PREDICTIONS[rng.choice(list(ODD_PREDICTIONS))])
        if at > 200 and rng.random() < 0.01:
            said = label(rng, **told | ODD_LABELS[rng.choice(list(ODD_LABELS))])
        if at > 200 and rng.random() < 0.01:
            made = made[:-1] if rng.random() < 0.5 else bytes([*made[:-1], rng.randrange(256)])
        found.append(record("predictions", at, START_MS + at, model.encode(), made))
        found.append(record("labels", at, START_MS + at + 30, model.encode(), said))
    return merged(found)


@pytest.mark.parametrize("seed", range(3))
def test_a_monitor_says_the_same_with_and_without(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    records = log_of(seed)
    results = []
    for least in (alike.LEAST_ROWS, 10**9):
        monkeypatch.setattr(alike, "LEAST_ROWS", least)
        monitor = Monitor(small(), "t.", 0)
        results.append((told(play(monitor, records, 80)), monitor.snapshot()))
    assert results[0] == results[1]
    assert len(results[0][0][1]) >= 3


def test_the_first_record_is_what_the_strict_decoder_must_accept() -> None:
    rows = keyed(random.Random(4), prediction, {})
    strange = msgspec.msgpack.encode(["model-1", 1, "x", 1.5, 1, b"\x00" * 12, "", None, None, None])
    assert not predictions_agree([(key, strange[:-1]) for key, _ in rows])
    assert not predictions_agree([(key, strange.replace(b"\xa1x", b"\xa0", 1)) for key, _ in rows])
    assert predictions_agree([(key, strange) for key, _ in rows])
