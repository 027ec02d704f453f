"""The texts that a graph knows of an input: those that its encoders and comparisons name, followed from the input on."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from ..schemas.errors import ModelUnsupported
from ..schemas.plain_text import shown
from .ml_attributes import Attributes
from .onnx_checks import describe

MOST_TEXTS = 10_000
_PASSED = (
    "Identity",
    "Concat",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Gather",
    "ArrayFeatureExtractor",
    "Transpose",
    "Where",
)
_KEYS = {"LabelEncoder": "keys_strings", "OneHotEncoder": "cats_strings"}


def texts_of(model: ModelProto, name: str) -> tuple[str, ...]:
    """Return the texts that mean something in input `name`, in the order in which the graph names them.

    Raises ModelUnsupported where an operator reads the text itself, and does not only compare it.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.STRING}
    texts: dict[str, None] = {}
    carried = {name}
    for node in model.graph.node:
        if not carried & set(node.input):
            continue
        if node.op_type in _KEYS:
            found = Attributes(node)
            texts |= dict.fromkeys(found.texts(_KEYS[node.op_type]))
            if found.has("values_strings"):
                carried |= set(node.output)
        elif node.op_type == "Equal":
            texts |= dict.fromkeys(_compared(node, constants))
        elif node.op_type in _PASSED:
            carried |= set(node.output)
        else:
            raise ModelUnsupported(
                f"{describe(node)} reads the text of input {shown(name)}: texts may be compared and encoded alone; do what it does "
                "before the model, and export the rest"
            )
    if len(texts) > MOST_TEXTS:
        raise ModelUnsupported(
            f"model input {shown(name)} must have at most {MOST_TEXTS} texts that the model knows, got {len(texts)}"
        )
    return tuple(texts)


def _compared(node: NodeProto, constants: dict[str, TensorProto]) -> list[str]:
    return [text.decode("utf-8", "replace") for name in node.input if name in constants for text in constants[name].string_data]
