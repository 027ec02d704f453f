"""What bounds refused is told once a minute of stream time for each bound, with how many it were, cuts or not."""

import numpy as np

from driftloop.detectors.over_limit import LimitNotes, OverLimit


def lines(notes: LimitNotes, minutes: list[float], settings: list[str], first: int = 0) -> list[str]:
    """Return what is told of records at these minutes, each refused by a bound."""
    for at, setting in enumerate(settings):
        notes.note(first + at, setting, f"record {first + at}")
    return notes.take(np.array([round(minute * 60_000) for minute in minutes]), first)


def test_each_bound_is_told_once_a_minute() -> None:
    notes = LimitNotes()
    assert lines(notes, [1.0, 1.1, 1.2], ["max_models", "max_models", "max_versions"]) == [
        "monitor.max_models is reached: record 0",
        "monitor.max_versions is reached: record 2",
    ]
    assert lines(notes, [1.9, 2.0], ["max_models"] * 2, first=3) == [
        "monitor.max_models is reached: record 4; 2 more since it was last told"
    ]


def test_it_is_the_same_in_one_batch_in_many_and_over_a_restart() -> None:
    minutes, settings = [1.0, 1.5, 2.5, 2.6, 4.0], ["a", "a", "a", "b", "a"]
    whole = lines(LimitNotes(), minutes, settings)
    notes, found = LimitNotes(), list[str]()
    for at, (minute, setting) in enumerate(zip(minutes, settings, strict=True)):
        found += lines(notes, [minute], [setting], at)
        restored = LimitNotes()
        restored.restore(notes.state())
        notes = restored
    assert found == whole
    assert len(whole) == 4


def test_the_refusal_names_its_setting() -> None:
    problem = OverLimit("max_models", "models must be few")
    assert (problem.setting, problem.disposition, str(problem)) == ("max_models", "over_limit", "models must be few")
