"""Models, jobs, produce and watch on the command line, over the memory transport."""

import errno
import getpass
import json
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from driftloop import cli
from driftloop.cli_console import State
from driftloop.compression import store
from driftloop.compression.onnx_file import clean
from driftloop.compression.small_model import untrained_model
from driftloop.schemas.events import JobFinished, ModelProposed, RowRange, Signature
from driftloop.schemas.rows import Rows
from driftloop.settings import load_settings
from driftloop.streams.memory import MemoryTransport
from driftloop.streams.outgoing import publish
from driftloop.streams.transport import Outgoing
from driftloop.tests.exported import FOLDER, mixed, mixed_rows
from driftloop.tests.made_drift import drift_opened
from driftloop.tests.onnx_graphs import sound_model

pytestmark = pytest.mark.slow

PREDICTION = {"model": "m", "version": 1, "prediction_id": "1", "output": 1, "features": {"a": 0.5}}
LABEL = {"type": "label_arrived", "model": "m", "prediction_id": "1", "label": 0}


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryTransport:
    made = MemoryTransport()
    monkeypatch.setattr(State, "transport", lambda self: made)
    monkeypatch.setenv("DRIFTLOOP_STORE__URL", str(tmp_path / "store"))
    return made


def run(*arguments: str, **options: object):
    return CliRunner().invoke(cli.app, [str(part) for part in arguments], **options)


def told(*arguments: str, **options: object):
    done = run(*arguments, "--json", **options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def model_file(folder: Path, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    rows = Rows(random.normal(size=(50, 3)).astype(np.float32), random.integers(0, 2, 50), np.arange(50))
    signature = Signature(task="classification", features=("a", "b", "c"), classes=("no", "yes"))
    path = folder / f"model{seed}.onnx"
    path.write_bytes(untrained_model(rows, signature, (8,)))
    return path


def test_a_model_is_registered_promoted_and_rolled_back(transport: MemoryTransport, tmp_path: Path) -> None:
    first = told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--promote")
    assert (first["version"], first["signature"]["classes"]) == (1, ["no", "yes"])
    assert first["signature"]["features"] == ["x0", "x1", "x2"]
    second = told("model", "register", "m", model_file(tmp_path, 1), "--classes", "no,yes", "--features", "a,b,c")
    assert (second["version"], second["parent_version"]) == (2, 1)
    assert told("model", "ls")[0]["champion"] == 1
    assert told("model", "promote", "m", "2")["previous_version"] == 1
    assert run("model", "promote", "m", "2").exit_code == 4
    assert told("model", "rollback", "m")["version"] == 1
    shown = told("model", "show", "m")
    assert (shown["champion"], shown["versions"]) == (1, 2)
    assert shown["lineage"][1]["manifest"]["parent_digest"] == first["digest"]
    assert [event["type"] for event in shown["history"]][-2:] == ["model_promoted", "model_rolled_back"]
    assert run("model", "show", "m").stdout.splitlines()[1].startswith("*\t1\t")


def test_a_person_decides_of_the_proposed_version(transport: MemoryTransport, tmp_path: Path) -> None:
    told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--promote")
    for seed in (1, 2):
        digest = told("model", "register", "m", model_file(tmp_path, seed), "--classes", "no,yes")["digest"]
        event = ModelProposed(model="m", version=1 + seed, digest=digest, reason="better", expires_at=4e9, previous_version=1)
        publish(load_settings(), transport, event)
    assert told("model", "ls")[0]["challenger"] == 3
    assert [line[:2] for line in run("model", "show", "m").stdout.splitlines()[1:]] == ["*\t", "\t2", "?\t"]
    assert run("model", "approve", "m", "2").exit_code == 4
    gone = told("model", "reject", "m", "--by", "ann", "--reason", "not on a Friday")
    assert (gone["version"], gone["by"], gone["reasons"]) == (3, "ann", ["not on a Friday"])
    assert run("model", "approve", "m").exit_code == 4
    publish(load_settings(), transport, event)
    approved = told("model", "approve", "m", "3")
    assert (approved["version"], approved["by"]) == (3, getpass.getuser())
    assert told("model", "ls")[0]["champion"] == 3


def test_the_same_file_is_registered_once(transport: MemoryTransport, tmp_path: Path) -> None:
    again = [told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes")["version"] for _ in range(2)]
    assert again == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["model", "register", "m", "nothing.onnx"], 3, "must exist"),
        (["model", "show", "nobody"], 3, "there is none yet"),
        (["model", "promote", "nobody", "1"], 3, "must be registered"),
        (["model", "rollback", "nobody"], 3, "must be registered"),
        (["jobs", "show", "nothing"], 3, "nothing"),
        (["jobs", "submit", "m"], 3, "model must be registered, got 'm'"),
        (["jobs", "submit", "m", "--recipe", "magic"], 2, "recipe must be one of repair, int8"),
        (["jobs", "submit", "m", "--recipe", "none.json"], 3, "recipe file must be readable"),
        (["jobs", "submit", "m", "--job-id", "9" * 5000], 2, "job_id must be 1 to"),
        (["jobs", "submit", "m", "--job-id", "two\nlines"], 2, "printable"),
        (["watch", "drift", "--count", "1", "--timeout", "0.2"], 124, "got 0"),
        (["compress", "nothing.onnx", "--rows", "x.csv", "--out", "x"], 3, "must exist"),
    ],
)
def test_what_is_not_there_has_its_exit_code(transport: MemoryTransport, arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, message in done.stderr) == (code, True), done.output


def test_a_file_that_is_no_model_is_refused(transport: MemoryTransport, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x80\x04pickle")
    done = run("model", "register", "m", path, "--classes", "no,yes")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("driftloop: model")
    wrong = run("model", "register", "m", model_file(tmp_path), "--classes", "a,b,c")
    assert wrong.exit_code == 1
    assert run("model", "ls").stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["credit risk", "team/fraud", "gr\u00f6\u00dfe", "a" * 201, "fraud:v2", ""])
def test_a_name_that_the_monitor_refuses_is_refused_before_anything_is_written(
    name: str, transport: MemoryTransport, tmp_path: Path
) -> None:
    done = run("model", "register", name, model_file(tmp_path), "--classes", "no,yes", "--promote")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "model must be 1 to 200 of A-Z a-z 0-9 . _ -, got" in done.stderr
    assert told("model", "ls") == []
    assert not (tmp_path / "store").exists()


def test_a_signature_that_the_monitor_refuses_is_refused_too(transport: MemoryTransport, tmp_path: Path) -> None:
    done = run("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--features", "a,a,b")
    assert done.exit_code == 1
    assert "signature.features must be distinct names" in done.stderr


def test_a_tree_ensemble_as_its_exporter_wrote_it_is_registered_with_its_own_classes(transport: MemoryTransport) -> None:
    done = run("model", "register", "m", FOLDER / "lgb_words.onnx", "--json")
    assert done.exit_code == 0, done.output
    signature = json.loads(done.stdout)["signature"]
    assert (signature["task"], signature["classes"], signature["output_name"]) == ("classification", ["no", "yes"], "probabilities")
    assert "ZipMap is taken out" in done.stderr
    swapped = run("model", "register", "m", FOLDER / "lgb_words.onnx", "--classes", "yes,no")
    assert (swapped.exit_code, "that the model file names, 'no,yes'" in swapped.stderr) == (4, True)
    named = told("model", "register", "n", FOLDER / "cat_three.onnx", "--classes", "low,middle,high")
    assert named["signature"]["classes"] == ["low", "middle", "high"]
    number = told("model", "register", "o", FOLDER / "xgb_number.onnx")
    assert (number["signature"]["task"], number["version"]) == ("regression", 1)


def test_columns_and_texts_of_a_file_become_features_and_categories(transport: MemoryTransport) -> None:
    signature = told("model", "register", "m", FOLDER / "mixed_forest.onnx")["signature"]
    assert signature["features"] == ["amount", "age", "visits", "colour", "size"]
    assert signature["categories"] == {"colour": ["blue", "green", "red"], "size": ["large", "small"]}
    renamed = told("model", "register", "n", FOLDER / "mixed_forest.onnx", "--features", "a,b,c,d,e")["signature"]
    assert set(renamed["categories"]) == {"d", "e"}
    done = run("model", "register", "n", FOLDER / "mixed_forest.onnx", "--features", "a,b")
    assert (done.exit_code, "features must be 5" in done.stderr) == (4, True)


def test_logits_are_told_and_squashed_where_asked(transport: MemoryTransport, tmp_path: Path) -> None:
    path, one = tmp_path / "logits.onnx", FOLDER / "xgb_number.onnx"
    model = sound_model()
    del model.graph.node[-1]
    model.graph.node[-1].output[0] = "scores"
    path.write_bytes(model.SerializeToString())
    done = run("model", "register", "m", path, "--classes", "a,b,c")
    assert (done.exit_code, "gives no chances" in done.stderr, "--squash softmax" in done.stderr) == (0, True, True)
    done = run("model", "register", "m", path, "--classes", "a,b,c", "--squash", "softmax")
    assert (done.exit_code, "gives no chances" in done.stderr, "a Softmax is put behind" in done.stderr) == (0, False, True)
    done = run("model", "register", "n", one, "--classes", "no,yes")
    assert (done.exit_code, "--squash sigmoid adds it" in done.stderr) == (1, True)
    assert told("model", "register", "n", one, "--classes", "no,yes", "--squash", "sigmoid")["version"] == 1
    done = run("model", "register", "n", path, "--classes", "a,b,c", "--squash", "sigmoid", "--features", "a,b,c,d")
    assert done.exit_code == 0
    path.write_bytes(sound_model().SerializeToString())
    done = run("model", "register", "o", path, "--classes", "a,b,c", "--squash", "sigmoid")
    assert (done.exit_code, "must be no chances yet" in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["register", "compress"])
def test_a_file_that_would_crash_or_hold_the_command_is_refused(
    transport: MemoryTransport, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "model.onnx", tmp_path / "rows.csv"
    table.write_text("a,b,c,d,y\n1,2,3,4,no\n5,6,7,8,yes\n")
    normed = [
        helper.make_node("LayerNormalization", ["features", "s"], ["n", "mean"], axis=2147483648),
        helper.make_node("Neg", ["n"], ["scores"]),
    ]
    hostile = sound_model()
    del hostile.graph.node[:]
    hostile.graph.node.extend(normed)
    hostile.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "s"))
    path.write_bytes(hostile.SerializeToString())
    said = {
        "register": ("model", "register", "m", path, "--classes", "no,yes"),
        "compress": ("compress", path, "--rows", table, "--label", "y", "--out", tmp_path / "out"),
    }[command]
    done = run(*said)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "'axis' must be -8 to 8" in done.stderr
    monkeypatch.setenv("DRIFTLOOP_MODELS__TRIAL_TIMEOUT_S", "0.01")
    path.write_bytes(clean(sound_model()))
    done = run(*said)
    assert (done.exit_code, "longer than 0.01 s" in done.stderr) == (1, True)
    path.unlink()
    os.mkfifo(path)
    done = run(*said)
    assert (done.exit_code, "plain file" in done.stderr) == (1, True)


def test_more_features_than_predictions_may_have_are_refused(
    transport: MemoryTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_MONITOR__MAX_FEATURES", "2")
    done = run("model", "register", "m", model_file(tmp_path), "--classes", "no,yes")
    assert (done.exit_code, "monitor.max_features" in done.stderr) == (4, True)


@pytest.mark.parametrize("data", [b'{"task": "\xff"}', b"[" * 100_000, b"{", b'{"task": 1}'])
def test_a_signature_that_cannot_be_read_is_told(transport: MemoryTransport, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "signature.json"
    file.write_bytes(data)
    done = run("model", "register", "m", model_file(tmp_path), "--signature", file)
    assert (done.exit_code, "signature must be a JSON object" in done.stderr) == (2, True), done.output
    folder = run("model", "register", "m", model_file(tmp_path), "--signature", tmp_path)
    assert (folder.exit_code, "signature must be a readable" in folder.stderr) == (2, True), folder.output


def test_a_job_is_taken_back(transport: MemoryTransport, tmp_path: Path) -> None:
    told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--promote")
    done = run("jobs", "submit", "m", "--job-id", "j1")
    assert "no worker is there" in done.stderr
    told("jobs", "submit", "m", "--job-id", "j2")
    assert [job["position"] for job in told("jobs", "ls")] == [1, 2]
    assert run("jobs", "cancel", "nobody").exit_code == 3
    assert told("jobs", "cancel", "j1") == {"job_id": "j1", "model": "m", "state": "cancelled"}
    assert [(job["state"], job["position"]) for job in told("jobs", "ls")] == [("cancelled", None), ("requested", 1)]
    again = run("jobs", "cancel", "j1")
    assert (again.exit_code, "it is cancelled" in again.stderr) == (4, True)
    assert run("jobs", "cancel", "j2", "--wait", "--timeout", "0.2").exit_code == 124
    assert "cancelled" in run("jobs", "show", "j2").stdout


def test_a_job_takes_the_rows_of_an_episode(transport: MemoryTransport, tmp_path: Path) -> None:
    told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--promote")
    for name, start in (("e1", 100), ("e2", 200)):
        span = RowRange(partition=0, start_offset=start, labels_start_offset=start)
        publish(load_settings(), transport, drift_opened(20, "m", name, span=span))
    unknown = run("jobs", "submit", "m", "--episode", "e3")
    assert (unknown.exit_code, "episode must be one of m, got e3" in unknown.stderr) == (3, True)
    told("jobs", "submit", "m", "--episode", "e1", "--job-id", "j1")
    asked = json.loads(run("watch", "jobs", "--from-beginning", "--count", "1", "--timeout", "5").stdout)
    assert (asked["rows"]["start_offset"], asked["episode_id"]) == (100, "e1")


def test_produced_events_are_watched(transport: MemoryTransport) -> None:
    lines = f"{json.dumps(PREDICTION)}\n\n{json.dumps(LABEL)}\n"
    assert told("produce", input=lines) == {"predictions": 1, "labels": 1}
    done = run("watch", "labels", "--from-beginning", "--count", "1", "--timeout", "5")
    seen = json.loads(done.stdout)
    assert {key: seen[key] for key in LABEL} == LABEL
    assert seen["_offset"] == 0
    assert isinstance(seen["_partition"], int)


def test_produce_stops_at_a_bad_line(transport: MemoryTransport) -> None:
    done = run("produce", input=f"{json.dumps(PREDICTION)}\n{{\n")
    assert done.exit_code == 1
    assert "line 2; 1 events before it were sent" in done.stderr


def test_a_job_is_followed_to_its_end(transport: MemoryTransport, tmp_path: Path) -> None:
    told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes")
    assert run("jobs", "submit", "m").exit_code == 4
    told("model", "promote", "m", "1")
    assert run("jobs", "submit", "m", "--wait", "--timeout", "0.2").exit_code == 124
    assert told("jobs", "submit", "m", "--job-id", "j1")["state"] == "requested"
    end = JobFinished(model="m", job_id="j1", recipe="repair", outcome="rejected", reasons=("no better",), duration_s=1.5)
    from driftloop.schemas.cloudevents import encode_event

    # What is no event, or one of a stranger's, ends no command that reads.
    for kind in ("jobs", "job-events"):
        transport.append([Outgoing(f"driftloop.{kind}", b"m", value) for value in (b"{", None, b"\xff", b'{"type":"job_failed"}')])
    transport.append([Outgoing("driftloop.job-events", *encode_event(end, 0.0))])
    assert [job["state"] for job in told("jobs", "ls")] == ["requested", "rejected"]
    assert told("jobs", "ls")[0]["position"] == 1
    assert told("jobs", "show", "j1")["ended_at"] >= told("jobs", "show", "j1")["requested_at"]
    assert told("jobs", "show", "j1")["reasons"] == ["no better"]
    waited = run("jobs", "submit", "m", "--job-id", "j1", "--wait", "--timeout", "5")
    assert (waited.exit_code, "no better" in waited.stderr) == (6, True)


def test_a_store_that_is_full_or_none_ends_in_one_line(
    transport: MemoryTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told("model", "register", "m", model_file(tmp_path), "--classes", "no,yes", "--promote")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def away(path: Path, limit_bytes: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "write_durably", full)
    refused = run("model", "register", "other", model_file(tmp_path, seed=2), "--classes", "no,yes")
    assert (refused.exit_code, refused.stdout) == (7, "")
    assert refused.stderr.startswith("driftloop: store must answer and have room, got: No space left on device")
    monkeypatch.setattr(store, "read_bounded", away)
    shown = run("model", "show", "m")
    assert shown.exit_code == 0
    assert "Input/output error" in shown.stderr
    assert "Traceback" not in refused.output + shown.output


def test_compress_reads_texts_by_the_names_of_the_file(tmp_path: Path) -> None:
    rows = mixed_rows("mixed_forest=two") * 12
    answers = mixed()["mixed_forest=two"].argmax(axis=1).tolist() * 12
    columns = ("size", "visits", "colour", "amount", "age")  # in another order than the model's, and between others
    lines = [",".join((*map(str, (row[name] for name in columns)), str(answer))) for row, answer in zip(rows, answers, strict=True)]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join([",".join((*columns, "bought")), *lines]))
    asked = ("compress", FOLDER / "mixed_forest.onnx", "--rows", table, "--label", "bought", "--out", tmp_path / "out")
    done = run(*asked, "--recipe", "repair", "--json")
    assert done.stdout, done.output
    verdict = json.loads(done.stdout)["verdict"]
    assert (done.exit_code in (0, 6), verdict["champion"]) == (True, 1.0), done.output


def test_compress_needs_no_broker(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 3))
    labels = np.where(features[:, 0] > 0, "yes", "no")
    table = tmp_path / "rows.csv"
    table.write_text(
        "\n".join(["a,b,c,y", *(f"{a:.4f},{b:.4f},{c:.4f},{y}" for (a, b, c), y in zip(features, labels, strict=True))])
    )
    out = tmp_path / "out"
    done = run("compress", model_file(tmp_path), "--recipe", "int8", "--rows", table, "--out", out, "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == (0 if told["promoted"] else 6), done.output
    assert told["verdict"]["metric"] == "accuracy"
    assert {path.suffix for path in out.glob("*")} == ({".onnx", ".json"} if told["promoted"] else set())
    assert "classification is assumed: the model gives 2 scores a row" in done.stderr
    turned = run("compress", model_file(tmp_path), "--rows", table, "--out", out, "--classes", "yes,no")
    assert "the classes seem to be in another order" in turned.stderr
    one = tmp_path / "one.csv"
    one.write_text("a,b,c,y\n" + "1,2,3,no\n" * 400)
    few = run("compress", model_file(tmp_path), "--rows", one, "--out", out)
    assert (few.exit_code, "rows hold 1 of the model's 2 classes" in few.stderr, "--classes no,..." in few.stderr) == (
        4,
        True,
        True,
    )
    narrow = tmp_path / "narrow.csv"
    narrow.write_text("a,y\n1,no\n2,yes\n")
    assert run("compress", model_file(tmp_path), "--rows", narrow, "--out", out).exit_code == 4
