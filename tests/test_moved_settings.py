"""Settings of earlier versions: each is found where it went, beside what the recipes say themselves."""

from pathlib import Path

import msgspec
import pytest

from driftloop.schemas.errors import SettingsInvalid
from driftloop.schemas.moved_settings import MOVED
from driftloop.schemas.recipes import BUILT_IN, Finetune
from driftloop.settings import load_settings

VALUES = {
    "epochs": 3,
    "learning_rate": 0.5,
    "weight_decay": 0.25,
    "batch_rows": 7,
    "old_row_weight": 0.75,
    "confidence": 0.8,
    "max_metric_loss": 0.5,
    "max_churn": 0.5,
    "max_latency_ratio": 3.0,
    "max_compressed_latency_ratio": 9.0,
    "max_size_ratio": 4.0,
    "worst_segment_loss": 0.5,
    "min_segment_rows": 77,
}


def variables(**values: object) -> dict[str, str]:
    return {f"DRIFTLOOP_REPAIR__{name.upper()}": str(value) for name, value in values.items()}


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_moved_setting_changes_its_recipes_alone(name: str) -> None:
    settings = load_settings(None, variables(**{name: VALUES[name]}))
    to = MOVED[name]
    for recipe in map(settings.recipe, BUILT_IN):
        known = BUILT_IN[recipe.name]
        if recipe.name in to.gates:
            assert recipe.gate == msgspec.structs.replace(known.gate, **{to.field: VALUES[name]})
        elif to.gates or recipe.name != "repair":
            assert recipe == known
        else:
            found = [getattr(step, to.field) for step in recipe.steps if isinstance(step, Finetune)]
            assert found == ([0.0, 0.75, 0.0] if name == "old_row_weight" else [VALUES[name]] * 3)


def test_all_of_them_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_text("[repair]\nseed = 5\n" + "".join(f"{name} = {value}\n" for name, value in VALUES.items()))
    settings = load_settings(file, {})
    assert settings.repair.seed == 5
    assert settings.recipe("int8").gate.max_loss == 0.5
    assert settings.recipe("repair").arms["scratch"][1] == Finetune(epochs=3, learning_rate=0.5, weight_decay=0.25, batch_rows=7)


def test_no_weight_for_old_rows_leaves_out_their_arm() -> None:
    arms = load_settings(None, variables(old_row_weight=0)).recipe("repair").arms
    assert arms == {name: arm for name, arm in BUILT_IN["repair"].arms.items() if name != "finetune_old"}


def test_what_a_recipe_says_itself_stays() -> None:
    own = {
        "DRIFTLOOP_RECIPES__INT8": '{"gate": {"max_churn": 0.3}}',
        "DRIFTLOOP_RECIPES__REPAIR": '{"arms": {"a": [{"type": "recall"}]}}',
    }
    settings = load_settings(None, variables(max_churn=0.5, max_metric_loss=0.2, epochs=4) | own)
    assert settings.recipe("int8").gate == msgspec.structs.replace(BUILT_IN["int8"].gate, max_churn=0.3, max_loss=0.2)
    assert list(settings.recipe("repair").arms) == ["a"]


@pytest.mark.parametrize("value", ["many", "", "true", "NaN", "[1]", "9" * 5_000])
def test_what_is_no_number_is_told_by_the_name_it_was_given(value: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"repair.max_metric_loss must be a number, of recipes.<name>: max_loss"):
        load_settings(None, variables(max_metric_loss=value))


@pytest.mark.parametrize("recipes", ["[recipes]\nint8 = 3\n", "recipes = 3\n", "[recipes.int8]\ngate = 3\n"])
def test_recipes_that_are_none_are_told_all_the_same(tmp_path: Path, recipes: str) -> None:
    file = tmp_path / "driftloop.toml"
    file.write_text(recipes + "[repair]\nmax_churn = 0.5\n")
    with pytest.raises(SettingsInvalid, match=r"recipes|gate must be a table"):
        load_settings(file, {})
