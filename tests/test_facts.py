"""Facts grow by doubling, and what was filled in stays."""

from driftloop.detectors.facts import grown


def test_what_is_known_stays_while_slots_are_added() -> None:
    facts = grown(None, 1)
    facts.kinds[0], facts.regress[0], facts.spans[0] = 2, True, 9
    facts.lookups[0], facts.indices[0] = {"a": 0.0}, {"a": 0}
    for count in (2, 3, 50):
        facts = grown(facts, count)
        assert {len(column) for column in facts} == {count}
        assert (facts.kinds[0], bool(facts.regress[0]), facts.spans[0]) == (2, True, 9)
        assert facts.lookups[0] == {"a": 0.0}
        assert not facts.regress[1:].any()
        assert facts.lookups[1:] == [None] * (count - 1)


def test_arrays_are_made_anew_only_now_and_then() -> None:
    facts, made = grown(None, 1), 0
    for count in range(2, 1_000):
        before = facts.kinds.base
        facts = grown(facts, count)
        made += facts.kinds.base is not before
    assert made < 12
