"""Vital signs in numbers: what stands still, rises or falls silent is a trouble once, and over once it was seen to be well."""

from driftloop.schemas.config import ServiceConfig
from driftloop.streams.vital_signs import DeadLetterRates, Silences, Stalls

CONFIG = ServiceConfig(stall_s=60, dead_letters_a_minute=10, dead_letter_factor=5, silent_s=300, silent_factor=10)
PART = ("t", 0)


def names(found: object) -> list[str]:
    return [trouble.name for trouble in found]  # type: ignore[attr-defined]


def test_a_partition_stands_still_only_while_records_wait() -> None:
    stalls = Stalls(CONFIG)
    assert names(stalls.judge({PART: 5}, {PART: 9}, 0.0)) == []
    assert names(stalls.judge({PART: 5}, {PART: 9}, 59.0)) == []
    assert names(stalls.judge({PART: 5}, {PART: 20}, 60.0)) == ["stall-t-0"]
    assert "stall-t-0" not in stalls.well
    assert names(stalls.judge({PART: 6}, {PART: 20}, 61.0)) == []
    assert "stall-t-0" in stalls.well
    assert names(stalls.judge({PART: 20}, {PART: 20}, 1_000.0)) == []
    assert names(stalls.judge({PART: 20}, {PART: 21}, 1_001.0)) == [], "it waits only since now"
    assert names(stalls.judge({PART: 20}, {PART: 21}, 1_061.0)) == ["stall-t-0"]


def test_records_older_than_the_first_look_are_not_waited_for_where_nothing_was_committed() -> None:
    stalls = Stalls(CONFIG)
    assert names(stalls.judge({}, {PART: 9}, 0.0)) == []
    assert names(stalls.judge({}, {PART: 9}, 100.0)) == []
    assert names(stalls.judge({}, {PART: 10}, 101.0)) == []
    assert names(stalls.judge({}, {PART: 10}, 200.0)) == ["stall-t-0"]


def minute(rates: DeadLetterRates, number: int, count: int) -> list[str]:
    for _ in range(count):
        rates.add("labels.dlq", "malformed")
    return names(rates.judge(number * 60.0))


def test_a_kind_of_dead_letter_rises_against_what_is_usual() -> None:
    rates = DeadLetterRates(CONFIG)
    assert minute(rates, 0, 0) == []
    assert [minute(rates, number, 9) for number in range(1, 6)] == [[]] * 5, "few are no trouble"
    assert minute(rates, 6, 60) == ["dead-letters-labels.dlq-malformed"]
    assert rates.settled
    assert minute(rates, 7, 0) == []


def test_many_dead_letters_that_are_usual_are_told_once() -> None:
    rates = DeadLetterRates(CONFIG)
    minute(rates, 0, 0)
    told = [minute(rates, number, 30) for number in range(1, 12)]
    assert told[0] == ["dead-letters-labels.dlq-malformed"]
    assert told[-1] == told[0], "it lasts until a minute is quiet"
    assert minute(rates, 12, 0) == []


def test_a_model_is_silent_against_its_own_interval() -> None:
    silences = Silences(CONFIG)
    for at in range(0, 600, 60):
        silences.add("m", float(at))
    silences.add("seldom", 0.0)
    assert names(silences.judge(540.0 + 599.0)) == []
    assert names(silences.judge(540.0 + 600.0)) == ["silent-m"]
    silences.add("m", 1_200.0)
    assert names(silences.judge(1_201.0)) == []
    assert "silent-m" in silences.well


def test_silences_are_bounded() -> None:
    silences = Silences(ServiceConfig(watched_models=100))
    for at in range(1_000):
        silences.add(f"m{at}", float(at))
    assert len(silences._seen_s) == 100
