"""Recipes are data: they survive every door, and what is wrong in one is told at once, all of it, in the same words everywhere."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.schemas import codecs
from driftloop.schemas.errors import NotFound, RecipeInvalid, SettingsInvalid
from driftloop.schemas.events import JobCommand, JobRequested
from driftloop.schemas.recipe_reading import definition_of, recipe_asked, recipe_named, recipe_of
from driftloop.schemas.recipes import BUILT_IN, Finetune, Quantize
from driftloop.settings import Settings, load_settings
from driftloop.streams.recipe_file import chosen_recipe

OWN = {"arms": {"small": [{"type": "finetune", "epochs": 3}, {"type": "quantize"}]}, "gate": {"max_loss": 0.02}}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_recipe_is_the_same_after_json(name: str) -> None:
    plain = json.loads(json.dumps(definition_of(BUILT_IN[name])))
    assert recipe_of(name, plain) == BUILT_IN[name]
    assert recipe_of("other", plain) == msgspec.structs.replace(BUILT_IN[name], name="other")


def test_a_new_recipe_is_steps_in_a_row() -> None:
    recipe = recipe_of("mine", OWN)
    assert recipe.arms == {"small": (Finetune(epochs=3), Quantize())}
    assert (recipe.needs_torch, recipe.trains, recipe.exits) == (True, True, ())
    assert not BUILT_IN["int8"].needs_torch


def test_a_table_of_a_built_in_name_says_what_differs() -> None:
    loose = recipe_of("int8", {"gate": {"max_latency_ratio": 2}})
    assert loose.gate == msgspec.structs.replace(BUILT_IN["int8"].gate, max_latency_ratio=2.0)
    assert loose.arms == BUILT_IN["int8"].arms
    assert recipe_of("int8", {"gate": {"min_gain": 0.01}}).gate.max_loss is None
    assert recipe_of("repair", {"exits": []}).exits == ()


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (5, ["must be a table"]),
        ({}, ["arms must be", "must name one of min_gain and max_loss, got neither"]),
        (OWN | {"arm": 1}, ["parameter of recipe", "did you mean arms?"]),
        (OWN | {"gate": {"max_loss": 0.1, "min_gain": 0}}, ["got both"]),
        (OWN | {"gate": {"max_los": 0.1}}, ["did you mean max_loss?"]),
        (OWN | {"gate": 3}, ["gate must be a table"]),
        (OWN | {"exits": ["never"]}, ["exit must be one of", "'never'"]),
        (OWN | {"arms": {"a": []}}, ["1 to 16 steps"]),
        (OWN | {"arms": {"a": [{"type": "finetun"}]}}, ["step type must be one of", "did you mean finetune?"]),
        (OWN | {"arms": {"a": ["finetune"]}}, ["step type must be one of", "step 1 of arm 'a' of recipe 'mine'"]),
        (OWN | {"arms": {"a": [{"type": "finetune", "epoch": 1}]}}, ["parameter of finetune", "did you mean epochs?"]),
        (OWN | {"arms": {"a": [{"type": "finetune", "epochs": 0, "old_weight": 2}]}}, ["epochs must be int >= 1, got 0", "got 2"]),
        (OWN | {"arms": {"a": [{"type": "finetune", "epochs": True}]}}, ["epochs must be int, got True"]),
        (OWN | {"arms": {"a": [{"type": "finetune", "learning_rate": float("inf")}]}}, ["must be finite"]),
        (OWN | {"arms": {"two\nlines": [{"type": "recall"}]}}, ["arm name must be 1 to 100 printable characters"]),
        (OWN | {"arms": {str(at): [{"type": "recall"}] for at in range(33)}}, ["1 to 32 arms"]),
    ],
)
def test_what_is_wrong_is_told_whole(definition: Any, words: list[str]) -> None:
    with pytest.raises(RecipeInvalid) as told:
        recipe_of("mine", definition)
    assert told.value.exit_code == 2
    for word in words:
        assert word in str(told.value)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["finetune", "quantize", "epochs", "min_gain"])
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["arms", "gate", "exits", "type", "epochs", "min_gain", "a", 3]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_whatever_a_stranger_sends_is_a_recipe_or_refused(plain: Any) -> None:
    for name in ("mine", "repair"):
        with suppress(RecipeInvalid):
            recipe = recipe_of(name, plain)
            assert recipe_of(name, definition_of(recipe)) == recipe


def test_a_request_carries_a_name_or_the_whole_and_old_records_are_read() -> None:
    old = b'{"type":"job_requested","model":"m","job_id":"j","recipe":"int8","requested_by":"user"}'
    request = codecs.decode(old, JobCommand, "here")
    assert recipe_asked(request, {}) == BUILT_IN["int8"]
    whole = JobRequested(model="m", job_id="j", recipe="mine", requested_by="user", definition=OWN)
    back = codecs.decode(msgspec.json.encode(whole), JobCommand, "here")
    assert recipe_asked(back, {}) == recipe_of("mine", OWN)
    assert recipe_asked(msgspec.structs.replace(request, recipe="mine"), {"mine": OWN}) == recipe_of("mine", OWN)
    assert recipe_asked(whole, {"mine": OWN}, take_whole=False) == recipe_of("mine", OWN)
    with pytest.raises(RecipeInvalid, match="take_whole_recipes is off"):
        recipe_asked(whole, {"mine": OWN | {"gate": {"max_loss": 0.5}}}, take_whole=False)
    with pytest.raises(RecipeInvalid, match="recipe must be one of repair, int8, prune50-int8, mine, got 'min'; did you mean mine"):
        recipe_asked(msgspec.structs.replace(request, recipe="min"), {"mine": OWN})
    for options, word in (({"sed": 1}, "option must be one of seed, got 'sed'"), ({"seed": "x"}, "seed must be a whole number")):
        with pytest.raises(RecipeInvalid, match=word):
            recipe_asked(msgspec.structs.replace(request, options=options), {})


def test_settings_hold_recipes_and_tell_wrong_ones_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_text(
        '[policy]\nrecipe = "mine"\n[recipes.mine]\narms.small = [{type = "finetune", epochs = 3}, {type = "quantize"}]\n'
        "gate = {max_loss = 0.02}\n"
    )
    settings = load_settings(file, {})
    assert settings.recipe("mine") == recipe_of("mine", OWN)
    assert settings.definition("mine") == definition_of(recipe_of("mine", OWN))
    assert settings.definition("repair") is None
    file.write_text('[policy]\nrecipe = "magic"\n[recipes.mine]\narms.a = [{type = "alchemy"}]\n')
    with pytest.raises(SettingsInvalid) as told:
        load_settings(file, {})
    assert len(told.value.problems) == 3
    assert told.value.problems[0].startswith("step type must be one of")
    assert told.value.problems[2].startswith("policy.recipe must be one of repair, int8, prune50-int8, mine, got 'magic'")


def test_a_variable_holds_a_recipe_as_json() -> None:
    settings = load_settings(environment={"DRIFTLOOP_RECIPES__REPAIR": '{"gate": {"max_latency_ratio": 100}}'})
    assert settings.recipe("repair").gate.max_latency_ratio == 100.0
    for text, words in (("{", "recipes"), ('{"gate": {"max": 1}}', "parameter of gate"), ("3", "recipes.repair")):
        with pytest.raises(SettingsInvalid, match=words):
            load_settings(environment={"DRIFTLOOP_RECIPES__REPAIR": text})


def test_a_command_takes_a_name_or_a_file(tmp_path: Path) -> None:
    settings = Settings(recipes={"mine": OWN})
    assert chosen_recipe(settings, "mine") == recipe_named("mine", {"mine": OWN})
    as_json, as_toml = tmp_path / "small.json", tmp_path / "int8.toml"
    as_json.write_text(json.dumps(OWN | {"name": "named"}))
    as_toml.write_text("[gate]\nmax_latency_ratio = 3.0\n")
    assert chosen_recipe(settings, str(as_json)) == recipe_of("named", OWN)
    assert chosen_recipe(settings, str(as_toml)).gate.max_latency_ratio == 3.0
    with pytest.raises(NotFound, match="readable"):
        chosen_recipe(settings, str(tmp_path / "none.json"))
    for text in ("{", "[1]", '{"name": 3}', "9" * 70_000, '{"arms": {}}'):
        as_json.write_text(text)
        with pytest.raises(RecipeInvalid, match=r"small\.json"):
            chosen_recipe(settings, str(as_json))
