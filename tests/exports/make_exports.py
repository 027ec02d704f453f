"""Make the exports in this folder: `pip install scikit-learn skl2onnx`, then `python make_exports.py`; no test needs either."""

from pathlib import Path

import numpy as np
from onnx import shape_inference
from onnx.utils import Extractor
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier, MLPRegressor

FOLDER = Path(__file__).parent


def features_of(count: int, seed: int) -> np.ndarray:
    """Return rows (n, 4) of standard normal numbers, as the tests make them."""
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def main() -> None:
    """Train and export a classifier with two classes, one with three, and a regressor."""
    rows = features_of(2000, 1)
    turn = rows[:, 0] + rows[:, 1] * rows[:, 2]
    sizes = (32, 16)
    models = {
        "mlp_classifier": (MLPClassifier(sizes, random_state=0), (turn > 0).astype(np.int64)),
        "mlp_three_classes": (MLPClassifier(sizes, random_state=0), np.digitize(turn, [-0.5, 0.5])),
        "mlp_regressor": (MLPRegressor(hidden_layer_sizes=sizes, max_iter=1000, random_state=0), 5 + 2 * turn),
    }
    for name, (model, labels) in models.items():
        options = None if name == "mlp_regressor" else {"zipmap": False}
        exported = to_onnx(model.fit(rows, labels), rows[:1], options=options, target_opset=18)
        if options:  # the label beside the scores is made by operators of ai.onnx.ml, which no champion may have
            exported = Extractor(shape_inference.infer_shapes(exported)).extract_model(["X"], ["probabilities"])
        (FOLDER / f"{name}.onnx").write_bytes(exported.SerializeToString())


if __name__ == "__main__":
    main()
