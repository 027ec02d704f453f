"""A head fits any graph, whatever its output holds and looks like; the champion's nodes stay, and the scores mean what they meant."""

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from driftloop.compression.cpu import Cpu
from driftloop.compression.onnx_file import load_onnx
from driftloop.compression.quantize import quantize_int8
from driftloop.compression.runtime import Runner
from driftloop.compression.score_head import FLOOR, ScoreHead
from driftloop.compression.small_model import train_small_model
from driftloop.compression.workpiece import Workpiece
from driftloop.schemas.errors import ArtifactInvalid, ModelUnsupported
from driftloop.schemas.events import Signature
from driftloop.tests.onnx_graphs import model_of, signature, sound_model, turning_rows

ROWS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def graph(*steps: tuple[str, dict[str, object]], columns: int = 3, opset: int = 18) -> ModelProto:
    """A MatMul and `steps` behind it, each on what the one before gives."""
    nodes: list[NodeProto] = [helper.make_node("MatMul", ["features", "w"], ["t0"])]
    for at, (kind, attributes) in enumerate(steps):
        more = ["shape"] if kind == "Reshape" else []
        nodes.append(helper.make_node(kind, [f"t{at}", *more], [f"t{at + 1}"], **attributes))
    nodes[-1].output[0] = "scores"
    tensors = {"w": WEIGHT[:, :columns], "shape": np.array([-1, 1, columns] if columns > 1 else [-1], np.int64)}
    model = model_of(nodes, {name: tensors[name] for name in tensors if any(name in node.input for node in nodes)}, opset=opset)
    if steps and "to" in steps[-1][1]:
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", int(str(steps[-1][1]["to"])), ["batch", columns]))
    return model


CASES: dict[str, tuple[ModelProto, Signature, str]] = {
    "chances": (sound_model(), signature(4, 3), "softmax"),
    "oldest opset": (graph(("Softmax", {"axis": 1}), opset=13), signature(4, 3), "softmax"),
    "newest opset": (graph(("Softmax", {"axis": 1}), opset=23), signature(4, 3), "softmax"),
    "half precision": (graph(("Softmax", {"axis": 1}), ("Cast", {"to": TensorProto.FLOAT16})), signature(4, 3), "softmax"),
    "double": (graph(("Softmax", {"axis": 1}), ("Cast", {"to": TensorProto.DOUBLE})), signature(4, 3), "softmax"),
    "three dimensions": (graph(("Softmax", {"axis": 1}), ("Reshape", {})), signature(4, 3), "softmax"),
    "a sigmoid a class": (graph(("Sigmoid", {})), signature(4, 3), "sigmoid"),
    "one sigmoid": (graph(("Sigmoid", {}), columns=1), signature(4, 2), "pair"),
    "one sigmoid, flat": (graph(("Sigmoid", {}), ("Reshape", {}), columns=1), signature(4, 2), "pair"),
    "logits": (graph(), signature(4, 3), "logits"),
    "numbers": (graph(columns=1), signature(4, 0), "number"),
    "numbers, flat": (graph(("Reshape", {}), columns=1), signature(4, 0), "number"),
}


def parts(name: str) -> tuple[Workpiece, ScoreHead, str]:
    model, kind, link = CASES[name]
    piece = Workpiece(model.SerializeToString(), kind)
    return piece, ScoreHead(piece, ROWS), link


@pytest.mark.parametrize("name", CASES)
def test_a_head_that_maps_nothing_changes_no_answer(name: str) -> None:
    piece, head, link = parts(name)
    assert head.link == link
    made = head.finish(head.scores, head.read(ROWS), ROWS)
    before, after = piece.runner.scores(ROWS), Runner(made, piece.signature).scores(ROWS)
    assert np.allclose(after, before, atol=2 * FLOOR + (1e-3 if name == "half precision" else 0))
    assert Runner(made, piece.signature).raw(ROWS).dtype == piece.runner.raw(ROWS).dtype
    for count in (1, 2, 17):
        assert Runner(made, piece.signature).raw(ROWS[:count]).shape == piece.runner.raw(ROWS[:count]).shape


@pytest.mark.parametrize("name", CASES)
def test_what_is_added_to_scores_moves_the_answers(name: str) -> None:
    piece, head, link = parts(name)
    more = np.zeros(head.columns)
    more[-1] = 30.0
    made = head.finish(head.node("Add", head.scores, head.constant(more)), head.read(ROWS) + more, ROWS)
    scores = Runner(made, piece.signature).scores(ROWS)
    if link == "number":
        assert np.allclose(scores, piece.runner.scores(ROWS) + 30, atol=1e-4)
    else:
        assert (scores.argmax(axis=1) == head.columns - 1).all()
        assert link == "logits" or (scores.min() >= 0 and scores.max() <= 1.0 + 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_champions_nodes_and_interface_stay(name: str) -> None:
    piece, head, _ = parts(name)
    made = load_onnx(head.finish(head.scores, head.read(ROWS), ROWS)).graph
    old = piece.model.graph
    assert [value.name for value in (*made.input, *made.output)] == [value.name for value in (*old.input, *old.output)]
    kept = {(node.op_type, *node.input) for node in made.node}
    assert all((node.op_type, *node.input) in kept for node in old.node)
    assert {tensor.name: tensor.raw_data for tensor in old.initializer}.items() <= {
        tensor.name: tensor.raw_data for tensor in made.initializer
    }.items()
    assert piece.onnx == CASES[name][0].SerializeToString(), "the champion itself is as it was"


def test_names_that_are_taken_are_taken_by_no_node_of_the_head() -> None:
    model = sound_model()
    for at, node in enumerate(model.graph.node[:-1]):
        new = f"head_{('clip', 'log', 'constant', 'scores')[at]}_{at + 18}"
        for other in model.graph.node:
            other.input[:] = [new if name == node.output[0] else name for name in other.input]
        node.output[0] = node.name = new
    piece = Workpiece(model.SerializeToString(), signature(4, 3))
    once = ScoreHead(piece, ROWS)
    made = piece.changed(once.finish(once.scores, once.read(ROWS), ROWS))
    twice = ScoreHead(made, ROWS)
    again = twice.finish(twice.scores, twice.read(ROWS), ROWS)
    assert np.allclose(Runner(again, piece.signature).scores(ROWS), piece.runner.scores(ROWS), atol=2 * FLOOR)
    names = [name for node in load_onnx(again).graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_what_the_graph_makes_of_its_scores_follows_the_new_ones() -> None:
    model = sound_model()
    model.graph.node.append(helper.make_node("MatMul", ["scores", "pick"], ["last"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([[0], [0], [1]], np.float32), "pick"))
    model.graph.output.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, ["batch", 1]))
    piece = Workpiece(model.SerializeToString(), signature(4, 3))
    head = ScoreHead(piece, ROWS)
    more = np.array([0.0, 0.0, 30.0])
    made = head.finish(head.node("Add", head.scores, head.constant(more)), head.read(ROWS) + more, ROWS)
    last = Runner(made, Signature(task="regression", features=tuple("abcd"), output_name="last")).scores(ROWS)
    assert (last > 0.999).all()


def test_rows_that_the_champion_answers_or_not_stay_so() -> None:
    gaps = ROWS.copy()
    gaps[::3, 1] = np.nan
    filled, plain = train_small_model(turning_rows(200, 1), signature(4, 2)), sound_model().SerializeToString()
    small = quantize_int8(filled, ROWS, Cpu()).onnx
    for data, kind, unanswered in ((filled, 2, 0), (small, 2, 0), (plain, 3, 20)):
        piece = Workpiece(data, signature(4, kind))
        head = ScoreHead(piece, ROWS)
        made = head.finish(head.scores, head.read(ROWS), ROWS)
        sound = np.isfinite(piece.runner.scores(gaps)).all(axis=1)
        assert (np.isfinite(Runner(made, piece.signature).scores(gaps)).all(axis=1) == sound).all()
        assert (~sound).sum() == unanswered


def test_an_image_is_read_as_a_row() -> None:
    tensors = {"w": np.random.default_rng(3).normal(size=(2, 1, 2, 2)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["features", "w"], ["a"]),
        helper.make_node("Flatten", ["a"], ["b"], axis=1),
        helper.make_node("Softmax", ["b"], ["scores"], axis=1),
    ]
    piece = Workpiece(model_of(nodes, tensors, shape=("batch", 1, 2, 2)).SerializeToString(), signature(4, 2))
    head = ScoreHead(piece, ROWS)
    weight = np.full((4, 2), 0.5)
    mapped = head.node("Add", head.scores, head.node("MatMul", head.features(), head.constant(weight)))
    made = head.finish(mapped, head.read(ROWS) + ROWS @ weight, ROWS)
    assert np.allclose(Runner(made, piece.signature).scores(ROWS), piece.runner.scores(ROWS), atol=2 * FLOOR)


def test_what_cannot_bear_a_head_is_refused_with_the_reason() -> None:
    piece = Workpiece(sound_model().SerializeToString(), signature(4, 3))
    head = ScoreHead(piece, ROWS)
    with pytest.raises(ArtifactInvalid, match="must agree with what was fitted"):
        head.finish(head.scores, head.read(ROWS) * 2, ROWS)
    with pytest.raises(ArtifactInvalid, match="finite scores on some training row"):
        ScoreHead(piece, np.full_like(ROWS, np.nan))
    model = sound_model()
    model.graph.node[-1].output[0] = "other"
    model.graph.output[0].name = "other"
    model.graph.output.append(helper.make_tensor_value_info("b1", TensorProto.FLOAT, [3]))
    held = Workpiece(model.SerializeToString(), Signature(task="regression", features=tuple("abcd"), output_name="b1"))
    with pytest.raises((ModelUnsupported, ArtifactInvalid), match="output 'b1'"):
        ScoreHead(held, ROWS)
