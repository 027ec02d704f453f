"""Train LightGBM for `repair.py` in an interpreter that has lightgbm and onnxmltools: one line `ROWS.npz MODEL.onnx` a model on stdin.

Answers each line with one on stdout, empty where the model is written.
"""

import sys
import warnings

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

ROUNDS = 80


def train(source: str, target: str) -> None:
    """Write the ONNX of a model trained on the rows of a file; integer labels are classes."""
    with np.load(source) as held:
        features, labels = held["features"], held["labels"]
    is_number = labels.dtype.kind == "f"
    kind = LGBMRegressor if is_number else LGBMClassifier
    model = kind(n_estimators=ROUNDS, num_leaves=31, random_state=0, n_jobs=1, verbose=-1).fit(features, labels)
    options = {} if is_number else {"zipmap": False}
    inputs = [("features", FloatTensorType([None, features.shape[1]]))]
    exported = convert_lightgbm(model, initial_types=inputs, target_opset=15, **options)
    with open(target, "wb") as file:
        file.write(exported.SerializeToString())


def main() -> None:
    """Train until stdin ends."""
    warnings.filterwarnings("ignore")
    for line in sys.stdin:
        try:
            train(*line.split())
            problem = ""
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        sys.stdout.write(" ".join(problem.split()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
