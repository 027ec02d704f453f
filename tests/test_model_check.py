"""`driftloop model check` says of a file what can be done with it, why not, and what to do about it."""

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from driftloop import cli
from driftloop.compression.adoption import adopt
from driftloop.schemas.errors import NotFound
from driftloop.settings import Settings
from driftloop.streams import model_check
from driftloop.streams.model_check import FOUND, MODEL, SIGNATURE, check_file, main
from driftloop.streams.publishing import adopted_signature
from driftloop.tests.exported import FOLDER
from driftloop.tests.onnx_graphs import sound_model

pytestmark = pytest.mark.slow

WHAT = ["served", "watched", "repaired", "trained", "compressed"]


def test_a_tree_ensemble_is_served_watched_and_repaired() -> None:
    done = CliRunner().invoke(cli.app, ["model", "check", str(FOLDER / "cat_words.onnx"), "--json"])
    assert done.exit_code == 0, done.output
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert list(found) == WHAT
    assert [one["able"] for one in found.values()] == [True, True, True, False, False]
    assert "ZipMap is taken out" in found["served"]["reason"]
    assert "4 numbers and 0 categories a row in, 2 classes out" in found["served"]["reason"]
    assert "by affine, correct, refit (finetune: " in found["repaired"]["reason"]
    assert "cannot be trained" in found["trained"]["reason"]
    assert found["compressed"]["cure"]


def test_a_file_that_cannot_be_served_can_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = sound_model()
    model.graph.node[1].op_type = "Loop"
    path.write_bytes(model.SerializeToString())
    done = CliRunner().invoke(cli.app, ["model", "check", str(path)])
    lines = done.stdout.splitlines()[1:]
    assert (done.exit_code, [line.split("\t")[:2] for line in lines]) == (1, [[what, "no"] for what in WHAT])
    assert "Loop" in lines[0]
    assert "export it anew" in lines[0]
    path.write_bytes(b"garbage")
    assert check_file(Settings(), path)[0].cure == "export the file anew; it must run in onnxruntime"
    with pytest.raises(NotFound):
        check_file(Settings(), tmp_path / "none.onnx")


def test_what_the_monitor_cannot_take_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "_abilities", lambda *_: ({}, "the child that tried it ended: memory"))
    settings = Settings()
    narrow = settings.model_copy(update={"monitor": settings.monitor.model_copy(update={"max_features": 3})})
    found = {one.what: one for one in check_file(narrow, FOLDER / "mlp_three_classes.onnx")}
    assert (found["watched"].able, found["watched"].cure) == (False, "raise monitor.max_features")
    assert found["repaired"].reason.startswith("affine: the child that tried it ended: memory; correct: ")


def test_logits_and_texts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_check, "_abilities", lambda *_: ({"affine": None}, ""))
    model = sound_model()
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "scores"
    path = tmp_path / "logits.onnx"
    path.write_bytes(model.SerializeToString())
    watched = check_file(Settings(), path)[1]
    assert (watched.able, "gives no chances" in watched.reason, "--squash softmax" in watched.cure) == (True, True, True)
    assert not check_file(Settings(), path, squash="softmax")[1].cure
    assert "categories are counted" in check_file(Settings(), FOLDER / "mixed_forest.onnx")[1].reason
    assert check_file(Settings(), path, ("a", "b"))[0].reason.endswith("must have 2 columns, got 3")


def test_the_child_writes_what_it_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    made = adopt((FOLDER / "sk_linear.onnx").read_bytes())
    (tmp_path / MODEL).write_bytes(made.onnx)
    (tmp_path / SIGNATURE).write_bytes(msgspec.json.encode(adopted_signature(made, (), ())))
    assert main([str(tmp_path)]) == 0
    found = json.loads((tmp_path / FOUND).read_bytes())
    assert (found["affine"], found["correct"]) == (None, None)
    assert "one tree ensemble" in found["refit"]
    wrong = msgspec.structs.replace(adopted_signature(made, (), ()), features=("a",))
    (tmp_path / SIGNATURE).write_bytes(msgspec.json.encode(wrong))
    assert main([str(tmp_path)]) == 1
    assert "must have 1 features" in capsys.readouterr().err
