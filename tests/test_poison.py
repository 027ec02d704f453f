"""Poison among good traffic: one dead letter each, bytes unchanged, and verdicts as without it."""

import json
import struct
from typing import Any

import msgspec
import pytest

from driftloop.detectors.effects import Effects
from driftloop.detectors.monitor import Monitor
from driftloop.schemas.codecs import PackedLabel, PackedPrediction, encode_json, encode_msgpack, pack_features
from driftloop.schemas.dead_letters import DISPOSITIONS
from driftloop.schemas.events import MetricsComputed
from driftloop.schemas.records import Record
from driftloop.tests.monitor_logs import START_MS, play, record, small, traffic

AT = 400
T = (START_MS + AT * 10) / 1000
NAN, INF = float("nan"), float("inf")
CONFIG = small(max_value_bytes=20_000, max_features=50, early_label_s=2)


def made(**changes: Any) -> dict[str, Any]:
    """Return a good prediction of the first model, changed; None takes a field away."""
    good = {"type": "prediction_made", "model": "model-0", "version": 1, "prediction_id": "bad", "output": 1, "ts": T}
    said: dict[str, Any] = {**good, "features": dict.fromkeys("abcd", 0.5), "scores": [0.5, 0.5]} | changes
    return {name: value for name, value in said.items() if value is not None}


def js(**changes: Any) -> bytes:
    return json.dumps(made(**changes)).encode()


def text(old: str, new: str) -> bytes:
    data = json.dumps(made())
    assert old in data
    return data.replace(old, new, 1).encode()


def mp(**changes: Any) -> bytes:
    return msgspec.msgpack.encode(made(**changes))


def packed(**changes: Any) -> bytes:
    said: dict[str, Any] = {"model": "model-0", "version": 1, "prediction_id": "bad", "ts": T, "output": 1}
    said |= {"features": pack_features([0.5] * 4), "scores": [0.5, 0.5]} | changes
    return encode_msgpack(PackedPrediction(**said))


def said(**changes: Any) -> dict[str, Any]:
    return {"model": "model-0", "prediction_id": "no-such", "label": 1} | changes


def label(**changes: Any) -> bytes:
    return json.dumps(said(**changes)).encode()


def signature(**changes: Any) -> bytes:
    good = {"task": "classification", "features": ["a", "b", "c", "d"], "classes": [0, 1]} | changes
    event = {
        "type": "model_registered",
        "model": "other",
        "version": 1,
        "digest": "d",
        "uri": "u",
        "size_bytes": 1,
        "signature": good,
    }
    return json.dumps(event).encode()


PREDICTIONS: dict[str, tuple[str, bytes | None]] = {
    "tombstone": ("malformed", None),
    "no bytes": ("malformed", b""),
    "one brace": ("malformed", b"{"),
    "plain text": ("malformed", b"hello"),
    "a number": ("malformed", b"42"),
    "a JSON list": ("malformed", b"[1,2]"),
    "null": ("malformed", b"null"),
    "empty object": ("malformed", b"{}"),
    "spaces": ("malformed", b"   "),
    "byte order mark": ("malformed", b"\xef\xbb\xbf" + js()),
    "UTF-16": ("malformed", js().decode().encode("utf-16")),
    "truncated JSON": ("malformed", js()[:-10]),
    "trailing comma": ("malformed", js()[:-1] + b",}"),
    "two objects": ("malformed", js() + js()),
    "single quotes": ("malformed", js().replace(b'"', b"'")),
    "deep nesting": ("malformed", b'{"a":' * 3_000 + b"1" + b"}" * 3_000),
    "deep lists in features": ("malformed", text('"features": {', '"features": ' + "[" * 3_000)),
    "NaN literal": ("malformed", js(ts=NAN)),
    "Infinity literal": ("malformed", js(latency_ms=INF)),
    "NaN feature literal": ("malformed", js(features={"a": NAN})),
    "wrong UTF-8": ("malformed", text("bad", "b@d").replace(b"@", b"\xff")),
    "field name of wrong UTF-8": ("malformed", b'{"\xb2":1,' + js()[1:]),
    "msgpack field name of wrong UTF-8": ("malformed", mp(xx=1).replace(b"\xa2xx", b"\xa2\xb2x")),
    "lone surrogate": ("malformed", text("bad", "\\ud800")),
    "control character": ("malformed", text("bad", "b\x00d")),
    "wrong type tag": ("malformed", js(type="label_arrived")),
    "type a number": ("malformed", js(type=7)),
    "no id": ("malformed", js(prediction_id=None)),
    "no output": ("malformed", js(output=None)),
    "no version": ("malformed", js(version=None)),
    "output a list": ("malformed", js(output=[1])),
    "output an object": ("malformed", js(output={"x": 1})),
    "id a number": ("malformed", js(prediction_id=5)),
    "version a text": ("malformed", js(version="1")),
    "version a fraction": ("malformed", js(version=1.5)),
    "version a truth": ("malformed", js(version=True)),
    "features a text": ("malformed", js(features="abc")),
    "feature a list": ("malformed", js(features={"a": [1]})),
    "scores an object": ("malformed", js(scores={"0": 1})),
    "score a text": ("malformed", js(scores=["0.5", "0.5"])),
    "score null": ("malformed", b'{"x":1,' + js()[1:].replace(b"[0.5, 0.5]", b"[0.5, null]")),
    "ts a word": ("malformed", js(ts="yesterday")),
    "latency a text": ("malformed", js(latency_ms="fast")),
    "segment a number": ("malformed", js(segment=5)),
    "truncated msgpack": ("malformed", mp()[:-5]),
    "msgpack with more behind": ("malformed", mp() + b"\x01"),
    "msgpack extension": ("malformed", b"\xc7\x01\x05\x00"),
    "unknown first byte": ("malformed", b"\xc1" + mp()),
    "avro with magic byte": ("malformed", b"\x00\x00\x00\x00\x07abc"),
    "gzip": ("malformed", b"\x1f\x8b\x08\x00abc"),
    "truncated packed": ("malformed", packed()[:-4]),
    "packed with broken floats": ("malformed", packed(features=b"\x00" * 15)),
    "packed names too few": ("malformed", packed(names="a\nb")),
    "packed with text for features": ("malformed", msgspec.msgpack.encode(["model-0", 1, "bad", T, 1, "abcd"])),
    "packed too short": ("malformed", msgspec.msgpack.encode(["model-0", 1])),
    "CloudEvent without an event": ("malformed", b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":5}'),
    "1e999": ("non_finite", text("0.5", "1e999")),
    "score 1e999": ("non_finite", js().replace(b"[0.5, 0.5]", b"[0.5, 1e999]")),
    "400 digits": ("non_finite", text("0.5", "1" + "0" * 400)),
    "output of 400 digits": ("non_finite", text('"output": 1', '"output": 1' + "0" * 400)),
    "beyond float32": ("non_finite", js(features={"a": 1e39})),
    "beyond float32 below": ("non_finite", js(features={"a": -1e300})),
    "msgpack NaN feature": ("non_finite", mp(features={"a": NAN})),
    "msgpack inf score": ("non_finite", mp(scores=[0.5, INF])),
    "msgpack NaN ts": ("non_finite", mp(ts=NAN)),
    "msgpack inf latency": ("non_finite", mp(latency_ms=INF)),
    "packed inf": ("non_finite", packed(features=struct.pack("<4f", 1, INF, 2, 3))),
    "packed minus inf": ("non_finite", packed(features=struct.pack("<4f", 1, -INF, 2, 3))),
    "packed NaN score": ("non_finite", packed(scores=[NAN, 0.5])),
    "packed NaN ts": ("non_finite", packed(ts=NAN)),
    "packed NaN output": ("non_finite", packed(output=NAN)),
    "packed NaN latency": ("non_finite", packed(latency_ms=NAN)),
    "empty id": ("invalid", js(prediction_id="")),
    "long id": ("invalid", js(prediction_id="x" * 257)),
    "packed empty id": ("invalid", packed(prediction_id="")),
    "version 0": ("invalid", js(version=0)),
    "version negative": ("invalid", packed(version=-1)),
    "version beyond int32": ("invalid", js(version=2**31)),
    "version of 30 digits": ("invalid", js(version=10**30)),
    "model of another key": ("invalid", js(model="model-1")),
    "model with null byte": ("invalid", js(model="model-0\x00")),
    "model with a slash": ("invalid", js(model="../etc")),
    "model empty": ("invalid", js(model="")),
    "model too long": ("invalid", js(model="m" * 201)),
    "output a text among numbers": ("invalid", js(output="1")),
    "output a truth among numbers": ("invalid", js(output=True)),
    "output a fraction with scores": ("invalid", js(output=0.5)),
    "three scores for two classes": ("invalid", js(scores=[0.2, 0.3, 0.5])),
    "no scores in the list": ("invalid", js(scores=[])),
    "list features too few": ("invalid", js(features=[1, 2, 3])),
    "packed features too many": ("invalid", packed(features=pack_features([0.5] * 5))),
    "ts negative": ("invalid", js(ts=-1)),
    "ts before 2000": ("invalid", js(ts=1000)),
    "ts an old date": ("invalid", js(ts="1999-12-31T23:59:59Z")),
    "ts in milliseconds": ("future", js(ts=T * 1000)),
    "ts in a year": ("future", packed(ts=T + 365 * 86400)),
    "ts a date far ahead": ("future", js(ts="2199-01-01T00:00:00Z")),
    "ts just too far": ("future", js(ts=T + 301)),
    "too many features": ("too_large", js(features={f"f{at}": 1 for at in range(51)})),
    "too many in a list": ("too_large", js(features=[1] * 51)),
    "too many bytes": ("too_large", js(segment="x" * 20_000)),
    "too many bytes of nonsense": ("too_large", b"x" * 20_001),
    "too many packed bytes": ("too_large", packed(segment="x" * 20_000)),
}
LABELS: dict[str, tuple[str, bytes | None]] = {
    "label tombstone": ("malformed", None),
    "label without id": ("malformed", b'{"model":"model-0","label":1}'),
    "label without label": ("malformed", b'{"model":"model-0","prediction_id":"x"}'),
    "label with a field name of wrong UTF-8": ("malformed", b'{"\xb2":1,' + label()[1:]),
    "label in msgpack with such a name": ("malformed", msgspec.msgpack.encode(said(xx=1)).replace(b"\xa2xx", b"\xa2\xb2x")),
    "label a list": ("malformed", label(label=[1])),
    "label NaN literal": ("malformed", label(label=NAN)),
    "label truncated msgpack": ("malformed", encode_msgpack(PackedLabel("model-0", "x", 1))[:-1]),
    "label packed too short": ("malformed", msgspec.msgpack.encode(["model-0"])),
    "label is a prediction": ("malformed", js()),
    "label empty id": ("invalid", label(prediction_id="")),
    "label of another key": ("invalid", label(model="model-1")),
    "label ts before 2000": ("invalid", label(ts=5)),
    "label empty text": ("invalid", label(label="")),
    "label long text": ("invalid", label(label="x" * 300)),
    "label inf": ("non_finite", encode_msgpack(PackedLabel("model-0", "x", INF))),
    "label of 60 digits": ("non_finite", label(label=10**60)),
    "label from the future": ("future", label(ts=T + 1e6)),
    "label too large": ("too_large", label(extra="x" * 20_000)),
    "label that joins nothing": ("unjoinable", label()),
    "label text among numbers": ("invalid", label(prediction_id="id-398", label="1")),
    "label a fraction among classes": ("invalid", label(prediction_id="id-398", label=0.5)),
    "label a truth among numbers": ("invalid", label(prediction_id="id-398", label=True)),
}
MODELS: dict[str, tuple[str, bytes | None]] = {
    "model event malformed": ("malformed", b'{"type":"model_registered"}'),
    "model event without type": ("malformed", b'{"model":"other"}'),
    "signature without classes": ("invalid", signature(classes=[])),
    "signature with mixed classes": ("invalid", signature(classes=[0, "1"])),
    "signature with a class twice": ("invalid", signature(classes=[1, 1.0])),
    "signature with a name twice": ("invalid", signature(features=["a", "a"])),
    "signature with too many features": ("too_large", signature(features=[f"f{at}" for at in range(51)])),
}
KEYS: dict[str, tuple[str, bytes | None]] = {
    "null key": ("invalid", None),
    "other key": ("invalid", b"x"),
    "wrong key": ("invalid", b"\xff"),
}
POISON = {
    **{name: ("predictions", disposition, b"model-0", value) for name, (disposition, value) in PREDICTIONS.items()},
    **{name: ("labels", disposition, b"model-0", value) for name, (disposition, value) in LABELS.items()},
    **{name: ("models", disposition, b"other", value) for name, (disposition, value) in MODELS.items()},
    **{name: ("predictions", disposition, key, js()) for name, (disposition, key) in KEYS.items()},
    **{f"label {name}": ("labels", disposition, key, label()) for name, (disposition, key) in KEYS.items()},
}


def poisoned(topic: str, key: bytes | None, value: bytes | None) -> tuple[list[Record], Record]:
    """Return good traffic with one more record; its offset is apart, so that the good records keep theirs."""
    good = traffic(900, drift_at=450)
    bad = record(topic, 10_000, START_MS + AT * 10, key, value)
    place = next(at for at, one in enumerate(good) if one.topic == "predictions" and one.offset == AT)
    return [*good[:place], bad, *good[place:]], bad


def verdicts(effects: Effects) -> list[bytes]:
    """Return all events; how much was counted aside may differ."""
    return [
        encode_json(msgspec.structs.replace(event, counts={}) if isinstance(event, MetricsComputed) else event)
        for event in effects.events
    ]


@pytest.fixture(scope="module")
def clean() -> list[bytes]:
    effects = play(Monitor(CONFIG, "driftloop.", 0), traffic(900, drift_at=450), 1_000)
    assert not effects.dead_letters
    assert any(b"drift_opened" in encode_json(event) for event in effects.events)
    return verdicts(effects)


@pytest.mark.parametrize("name", POISON)
def test_poison_is_dead_lettered_and_no_detector_notices(name: str, clean: list[bytes]) -> None:
    topic, disposition, key, value = POISON[name]
    log, bad = poisoned(topic, key, value)
    effects = play(Monitor(CONFIG, "driftloop.", 0), log, 1_000)
    assert [(one.disposition, one.offset) for one in effects.dead_letters] == [(disposition, 10_000)], effects.dead_letters
    letter = effects.dead_letters[0]
    assert (letter.value, letter.key, letter.timestamp_ms, letter.headers) == (value, key, bad.timestamp_ms, bad.headers)
    assert letter.topic == f"driftloop.{topic}"
    assert letter.message
    assert verdicts(effects) == clean


def test_there_are_enough_kinds_and_every_disposition() -> None:
    assert len(POISON) >= 70
    assert {disposition for _, disposition, _, _ in POISON.values()} == set(DISPOSITIONS) - {"processing_error", "over_limit"}


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_all_poison_at_once(size: int, clean: list[bytes]) -> None:
    good = traffic(900, drift_at=450)
    place = next(at for at, one in enumerate(good) if one.topic == "predictions" and one.offset == AT)
    bad = [record(topic, 10_000 + at, START_MS + AT * 10, key, value) for at, (topic, _, key, value) in enumerate(POISON.values())]
    effects = play(Monitor(CONFIG, "driftloop.", 0), [*good[:place], *bad, *good[place:]], size)
    told = {one.offset: one.disposition for one in effects.dead_letters}
    expected = {10_000 + at: disposition for at, (_, disposition, _, _) in enumerate(POISON.values())}
    assert told == expected
    assert verdicts(effects) == clean


def test_a_poisoned_first_record_teaches_nothing() -> None:
    bad = record("predictions", 0, START_MS, b"model-0", js(features={"z": 1}, output="x", ts=T * 1000))
    monitor = Monitor(CONFIG, "driftloop.", 0)
    play(monitor, [bad], 1)
    assert len(monitor.table) == 0
    play(monitor, traffic(300), 100)
    assert monitor.table.names(0) == ("a", "b", "c", "d")
