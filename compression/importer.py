"""ONNX into torch: an fx graph with real, trainable Linear, Conv and BatchNorm modules; what is not known is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import ModelProto, numpy_helper
from torch import fx, nn

from ..schemas.errors import ModelUnsupported
from .graph_builder import Builder, Operator, WeightLink
from .layers import LAYERS
from .onnx_checks import describe
from .onnx_file import graph_signature, lift_constants, load_onnx
from .operators import OPERATORS


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model in torch.

    `module` gives what the ONNX gives; `trunk` shares its weights and stops before a last Softmax or Sigmoid, so that losses are
    taken from logits. `input_shape` is without the batch. `squash` names the activation the trunk leaves out, or is empty.
    """

    module: fx.GraphModule
    trunk: fx.GraphModule
    links: tuple[WeightLink, ...]
    input_shape: tuple[int, ...]
    squash: str = ""

    def twin(self) -> ImportedModel:
        """Return a copy with weights of its own."""
        module, trunk = copy.deepcopy((self.module, self.trunk))
        return ImportedModel(module, trunk, self.links, self.input_shape, self.squash)


def import_onnx(data: bytes) -> ImportedModel:
    """Return the model in `data` as trainable torch modules.

    Raises ArtifactInvalid as load_onnx does, and ModelUnsupported naming the node for an operator, attribute or shape that is not
    handled.
    """
    return import_model(load_onnx(data))


def import_model(model: ModelProto) -> ImportedModel:
    """Return a model that load_onnx gave as trainable torch modules; raises ModelUnsupported."""
    graph = graph_signature(model)
    model = lift_constants(model)
    builder = _builder(model)
    builder.values[graph.input_name] = builder.graph.placeholder("features")
    table: dict[str, Operator] = {**OPERATORS, **LAYERS}
    for node in model.graph.node:
        if node.op_type not in table:
            raise ModelUnsupported(f"{describe(node)}: operator {node.op_type} cannot be trained")
        if len([name for name in node.output if name]) != 1:
            raise ModelUnsupported(f"{describe(node)} must have one output, got {len(node.output)}")
        builder.values[node.output[0]] = table[node.op_type](builder, node)
        builder.made_by[node.output[0]] = node.op_type
    return _finish(builder, model, graph.input_shape)


def _builder(model: ModelProto) -> Builder:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=False)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values if value.type.tensor_type.HasField("shape")}
    uses = [name for node in model.graph.node for name in node.input]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return Builder(
        graph=fx.Graph(),
        root=nn.Module(),
        constants=constants,
        ranks=ranks,
        opset=model.opset_import[0].version,
        shared={name for name in constants if uses.count(name) > 1},
    )


def _finish(builder: Builder, model: ModelProto, input_shape: tuple[int, ...]) -> ImportedModel:
    last = model.graph.node[-1]
    outputs = [value.name for value in model.graph.output]
    missing = [name for name in outputs if name not in builder.values]
    if missing:
        raise ModelUnsupported(f"model output {missing[0]!r} is not computed by any node")
    made_by = {name: node for node in model.graph.node for name in node.output}
    producer = made_by.get(outputs[0], last)
    while producer.op_type == "Identity" and producer.input[0] in made_by:
        producer = made_by[producer.input[0]]
    squash = producer.op_type if producer.op_type in ("Softmax", "Sigmoid") else ""
    ends = (builder.values[outputs[0]], builder.values[producer.input[0] if squash else outputs[0]])
    module, trunk = (_ending_at(builder, end) for end in ends)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ModelUnsupported("model must have weights that can be trained, got none")
    return ImportedModel(module, trunk, tuple(_live(module, builder.links)), input_shape, squash)


def _ending_at(builder: Builder, end: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(builder.graph, values)
    graph.output(values[end])
    module = fx.GraphModule(builder.root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


def _live(module: fx.GraphModule, links: list[WeightLink]) -> Iterator[WeightLink]:
    held = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    return (link for link in links if link.path in held)
