"""What can be done with a model is what its steps do with it, each told when it is known."""

import numpy as np
import pytest

from driftloop.compression import abilities as room
from driftloop.compression.abilities import Ability, abilities, made_up_rows
from driftloop.compression.adoption import adopt
from driftloop.schemas.errors import ArtifactInvalid
from driftloop.schemas.events import Signature
from driftloop.streams.publishing import adopted_signature
from driftloop.tests.exported import FOLDER
from driftloop.tests.onnx_graphs import signature, sound_model

pytestmark = pytest.mark.slow


def of(name: str) -> dict[str, str | None]:
    made = adopt((FOLDER / f"{name}.onnx").read_bytes())
    return {one.step: one.problem for one in abilities(made.onnx, adopted_signature(made, (), ()))}


@pytest.mark.parametrize("name", ["lgb", "mixed_forest", "cat_number"])
def test_trees_take_all_but_training_and_compression(name: str) -> None:
    found = of(name)
    assert {step for step, problem in found.items() if problem is None} == {"affine", "correct", "refit"}
    assert "cannot be trained" in str(found["finetune"])
    assert "to quantize" in str(found["quantize"])


def test_a_network_takes_all_but_new_leaves() -> None:
    found = of("sk_net")
    assert {step for step, problem in found.items() if problem is None} >= {"affine", "correct", "finetune", "quantize"}
    assert "one tree ensemble, got 0" in str(found["refit"])


def test_each_is_told_at_once_and_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("no", name="torch")

    monkeypatch.setattr(room, "run_step", missing)
    told: list[Ability] = []
    found = abilities(sound_model().SerializeToString(), signature(4, 3), told.append)
    assert found == told
    assert {one.problem for one in found} == {"torch must be installed (pip install driftloop[worker])"}


def test_what_makes_nothing_finite_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        def scores(self, features: np.ndarray) -> np.ndarray:
            return np.full((len(features), 3), np.nan)

    class Made:
        runner = Blind()

    monkeypatch.setattr(room, "run_step", lambda *_: Made())
    found = abilities(sound_model().SerializeToString(), signature(4, 3))
    assert {one.problem for one in found} == {"what it makes answers no row of ordinary numbers"}


def test_a_model_of_another_signature_is_refused() -> None:
    with pytest.raises(ArtifactInvalid, match="must have 5 features"):
        abilities(sound_model().SerializeToString(), signature(5, 3))


def test_made_up_rows_hold_known_categories_and_every_class() -> None:
    wanted = Signature(task="classification", features=("a", "b"), classes=(0, 1, 2), categories={"b": ("x", "y")})
    rows = made_up_rows(wanted, 60)
    assert set(rows.features[:, 1].tolist()) == {0.0, 1.0}
    assert np.bincount(rows.labels.astype(np.int64)).tolist() == [20, 20, 20]
    number = made_up_rows(Signature(task="regression", features=("a",)), 10)
    assert number.labels.dtype == np.float64
